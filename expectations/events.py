"""The contract of the events, of which a block of rows is in memory at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from expectations.base import POSITIVE
from expectations.by_block import ByBlock
from expectations.engine import Engine, Fingerprint, Known
from expectations.kept_checks import KeptChecks
from expectations.outcome import Outcome, check_table, row_line
from expectations.rules import Contract
from nightloom.config import RunConfig
from nightloom.core.counts import added
from nightloom.core.errors import InputError
from nightloom.data.preparation.labels import is_positive
from nightloom.data.tables.blocks import PartByPart, SpeltWriter, StoredTable, Texts, in_blocks
from nightloom.data.tables.quarantine import Breach, Quarantine, separate


@dataclass
class GoodEvents:
    """What is counted of the good events.

    Attributes:
        rows: of them.
        positive: those that are positive.
        of_user: of each user, int64 [users].
        oldest: time, or order, of the first; None without any.
        newest: likewise of the last.
        fingerprint: of the rows, with the helper column `POSITIVE`.
    """

    rows: int = 0
    positive: int = 0
    of_user: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    oldest: Any = None
    newest: Any = None
    fingerprint: Fingerprint = field(default_factory=Fingerprint)


@contextmanager
def on_disk(events: pd.DataFrame | StoredTable, folder: Path) -> Iterator[StoredTable]:
    """The events on disk; those of a frame only as long as the block lasts."""
    if isinstance(events, StoredTable):
        yield events
        return
    with tempfile.TemporaryDirectory(prefix=".events-", dir=folder) as scratch:
        path = Path(scratch) / "events.parquet"
        with SpeltWriter(path, events.iloc[:0]) as writer:
            for block in in_blocks(events):
                writer.add(block)
        yield StoredTable(path)


def check_events(
    engine: Engine,
    events: StoredTable,
    config: RunConfig,
    contract: Contract,
    outcome: Outcome,
    quarantine: Quarantine,
    path: Path,
    kept: KeptChecks | None = None,
) -> GoodEvents:
    """Check all rules of the events: the good rows are written, the bad ones go to the quarantine.

    Args:
        engine: judges.
        events: canonical events, whose columns have passed their checks.
        config: what is positive.
        contract: the rules.
        outcome: gets what is found.
        quarantine: gets the bad rows with their reasons.
        path: where the good rows are written, a file or a folder as the events are.
        kept: what is kept of events in parts from night to night.

    Returns:
        What is counted of the good events.
    """
    good, users = GoodEvents(), Texts()
    time = "timestamp" if "timestamp" in events else "order"
    judge = ByBlock(engine, "events, rows", events, contract.rows)
    with PartByPart(path, events) as writer:

        def go_through(begin: int, end: int | None, told: Callable[[pd.DataFrame], None] = lambda _: None) -> None:
            for block, broken in judge.blocks(begin, end):
                rows, aside = separate(
                    block, [Breach(rule.column, rule.name, bad) for rule, bad in zip(contract.rows, broken, strict=True) if bad.any()]
                )
                quarantine.add(aside)
                told(aside)
                writer.add(rows, block)
                _count(good, users, rows, time, config)

        begin = kept.begin(judge, good, users, quarantine.add, writer.go_on) if kept else 0
        if kept:
            go_through(begin, kept.last, kept.bad)
            kept.hold(judge, good, users, path)
        go_through(kept.last if kept else begin, None)
    if kept:
        kept.keep()
    for at, (rule, result) in enumerate(zip(contract.rows, judge.results(), strict=True)):
        examples = events.no_rows[rule.column] if result.success else judge.examples(at)
        outcome.checks.append(row_line("events", rule, result.success, len(events), judge.bad(at), examples))
    labelled = cast(pd.DataFrame, _Labelled(path, config))
    check_table(engine, "events", labelled, contract, outcome, _known(good, events, time, str(good.fingerprint)))
    return good


def _count(good: GoodEvents, users: Texts, rows: pd.DataFrame, time: str, config: RunConfig) -> None:
    """Count more good rows."""
    labels = _labels(rows, config)
    place = pd.RangeIndex(good.rows, good.rows + len(rows))
    good.fingerprint.add(rows.set_axis(place).assign(**{POSITIVE: labels.astype(float)}))
    good.rows, good.positive = place.stop, good.positive + int(labels.sum())
    good.of_user = added(good.of_user, np.bincount(users.numbers(rows["user_id"]), minlength=len(users)))
    if len(rows):
        oldest, newest = rows[time].min(), rows[time].max()
        good.oldest = oldest if good.oldest is None else min(good.oldest, oldest)
        good.newest = newest if good.newest is None else max(good.newest, newest)


def _known(good: GoodEvents, events: StoredTable, time: str, fingerprint: str) -> Known:
    """The aggregates that table rules ask for, so that no column of the good events is read for them."""
    share, newest = pd.Series(dtype=float), events.no_rows[time]
    if good.rows:
        share, newest = pd.Series([good.positive / good.rows]), pd.Series([good.newest], dtype=newest.dtype)
    return Known(
        good.rows,
        {("expect_column_mean_to_be_between", POSITIVE): share, ("expect_column_max_to_be_between", time): newest},
        fingerprint,
    )


class _Labelled(StoredTable):
    """The good events with the helper column `POSITIVE`."""

    def __init__(self, path: Path, config: RunConfig) -> None:
        super().__init__(path)
        self.no_rows = self.no_rows.assign(**{POSITIVE: pd.Series(dtype=float)})
        self._config = config

    def whole(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """All rows of some columns."""
        wanted = list(self) if columns is None else list(columns)
        found = super().whole([name for name in wanted if name != POSITIVE])
        if POSITIVE in wanted:
            labels = [_labels(block, self._config) for block in in_blocks(StoredTable(self.path))]
            found[POSITIVE] = np.concatenate(labels).astype(float)
        return found[wanted]


def _labels(events: pd.DataFrame, config: RunConfig) -> NDArray[np.bool_]:
    try:
        return is_positive(events, config.prepare)
    except InputError:  # there is no column to tell by: the balance rule says that none is positive, with its remedy
        return np.zeros(len(events), dtype=bool)
