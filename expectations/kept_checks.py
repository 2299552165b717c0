"""What the row rules found in parts of the events that were there before, kept from night to night.

It is what `expectations.by_block` and `expectations.events` count, row by row. It holds good where code, config and rules are the same and
every row rule judges each row by itself. A limit that moves with the night, such as "in the future", must part the same values as before,
and a rule that looks at another table must say of each distinct value what it said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from expectations.rules import RowRule
from nightloom.config import RunConfig, hash_json
from nightloom.core.digests import digest
from nightloom.data.tables.blocks import SpeltWriter, StoredTable, Texts, part_name
from nightloom.data.tables.coded import files_of, is_coded
from nightloom.data.tables.kept import MOST, keeping, link, link_all, take
from nightloom.runs.code import code_of

if TYPE_CHECKING:
    from expectations.by_block import ByBlock
    from expectations.events import GoodEvents

BETWEEN = "expect_column_values_to_be_between"
LIMITS = ("min_value", "max_value")


class KeptChecks:
    """What is kept of the checks of events in parts.

    Args:
        home: its folder (`nightloom.data.tables.kept`).
        events: of tonight.
        config: of tonight.
        rules: the row rules.
        scratch: an empty folder for tonight.
    """

    def __init__(self, home: Path, events: StoredTable, config: RunConfig, rules: Sequence[RowRule], scratch: Path) -> None:
        self._home, self._events, self._rules, self._scratch = home, events, rules, scratch
        self._parts = [digest(file) for file in files_of(events.path)]
        columns = {str(name): str(column.dtype) for name, column in events.no_rows.items()}
        sections = [getattr(config, one).model_dump(mode="json") for one in ("validation", "prepare")]
        code = code_of(["expectations.run", f"expectations.{config.validation.suite}"])
        coded = [str(name) for name, column in events.no_rows.items() if is_coded(column)]
        self._key = hash_json([code, columns, sections, [_said(rule, coded) for rule in rules]])
        self._bad: list[Path] = []
        self._writer: SpeltWriter | None = None
        self._said: dict[str, Any] | None = None

    @property
    def last(self) -> int:
        """The number of the last part, to which rows may yet be added: nothing of it is kept."""
        return len(self._parts) - 1

    def begin(
        self, judge: ByBlock, good: GoodEvents, users: Texts, add: Callable[[pd.DataFrame], None], link_good: Callable[[Path], None]
    ) -> int:
        """Take what was kept: the number of parts that it holds for, 0 where nothing can be taken.

        Args:
            judge: gets what was found.
            good: gets what was counted of good rows.
            users: gets their users.
            add: gets the bad rows.
            link_good: gets the files of good rows.
        """
        into = self._scratch / "before"
        into.mkdir()
        said = take(self._home, self._key, into)
        if said is None or not judge.keeps(self._rules) or said["nights"] >= MOST:
            return 0
        if self._events.ends[-1] == self._events.ends[-2]:  # tonight no row would be judged
            return 0
        many = len(said["parts"])
        if said["parts"] != self._parts[:many] or many > self.last or not judge.begin(into, said["rules"]):
            return 0
        good.rows, good.positive = said["good"]
        of_user = pq.read_table(into / "users.parquet")
        users.values = of_user["value"].combine_chunks()
        good.of_user = of_user["rows"].to_numpy()
        good.oldest, good.newest = (pd.Timestamp(one) if isinstance(one, str) else one for one in said["ends"])
        good.fingerprint.sums = tuple(said["fingerprint"])
        self._bad = [into / f"bad_{night}.parquet" for night in range(said["nights"])]
        for path in self._bad:
            add(pd.read_parquet(path))
        for path in sorted((into / "good").glob("*.parquet")):
            link_good(path)
        return many

    def bad(self, aside: pd.DataFrame) -> None:
        """Bad rows of a part that is kept."""
        if len(aside):
            path = self._scratch / "bad.parquet"
            self._writer = self._writer or SpeltWriter(path, aside.iloc[:0])
            self._writer.add(aside)

    def hold(self, judge: ByBlock, good: GoodEvents, users: Texts, path: Path) -> None:
        """Hold what was found in all parts but the last, whose good rows are at `path`."""
        if not judge.keeps(self._rules):
            return
        held = self._scratch / "held"
        held.mkdir()
        if self._writer is not None:
            self._writer.__exit__()
            self._bad.append(self._writer.path)
        for night, one in enumerate(self._bad):
            link(one, held / f"bad_{night}.parquet")
        for number in range(self.last):
            if (one := path / part_name(number)).exists():
                link(one, held / "good" / one.name)
        pq.write_table(pa.table({"value": users.values, "rows": good.of_user}), held / "users.parquet")
        self._said = {
            "parts": self._parts[: self.last],
            "nights": len(self._bad),
            "rules": judge.write(held),
            "good": [good.rows, good.positive],
            "ends": [
                one.isoformat() if isinstance(one, pd.Timestamp) else None if one is None else int(one)
                for one in (good.oldest, good.newest)
            ],
            "fingerprint": list(good.fingerprint.sums),
        }

    def keep(self) -> None:
        """Keep for the next night what is held."""
        if self._said is not None:
            with keeping(self._home, self._key, self._said) as folder:
                link_all(self._scratch / "held", folder)


def has_border(expectation: Any) -> bool:
    """Whether a rule on numbers or times has limits that may move (see `Border`)."""
    said = expectation.configuration.kwargs
    return expectation.expectation_type == BETWEEN and not said.get("strict_min") and not said.get("strict_max")


def _said(rule: RowRule, coded: Sequence[str]) -> list[Any]:
    """What tells a rule from others, less the limits that may move."""
    if rule.expectation is None:
        return [rule.column, rule.name, list(rule.reads), rule.alone]
    said = dict(rule.expectation.configuration.kwargs)
    moving = LIMITS if has_border(rule.expectation) and rule.column not in coded else ()
    return [
        rule.column,
        rule.name,
        rule.expectation.expectation_type,
        {key: str(one) for key, one in sorted(said.items()) if key not in moving},
    ]


class Border:
    """Which values of a column a rule with limits lets through: between those that it does and those that it does not the limits may move.

    Attributes:
        inside: the least and the greatest value that passes; None where none does.
        outside: the greatest value that is too small, and the least that is too great; likewise.
    """

    def __init__(self) -> None:
        self.inside: list[Any] = [None, None]
        self.outside: list[Any] = [None, None]

    def add(self, values: pd.Series, bad: NDArray[np.bool_], low: Any) -> None:
        """More rows, of which those that are `bad` fail."""
        known = values.notna().to_numpy()
        passes, fails = values[known & ~bad], values[known & bad]
        below = fails < low if low is not None else np.zeros(len(fails), dtype=bool)
        few, many = (min, max), (max, min)
        for place, (choose, found) in enumerate(zip(few, (passes, passes), strict=True)):
            self.inside[place] = _either(choose, self.inside[place], found, least=place == 0)
        for place, (choose, found) in enumerate(zip(many, (fails[below], fails[~np.asarray(below)]), strict=True)):
            self.outside[place] = _either(choose, self.outside[place], found, least=place == 1)

    def holds(self, low: Any, high: Any) -> bool:
        """Whether other limits part the same values."""
        (least, greatest), (below, above) = self.inside, self.outside
        fits_low = low is None or ((least is None or low <= least) and (below is None or below < low))
        fits_high = high is None or ((greatest is None or greatest <= high) and (above is None or high < above))
        return bool(fits_low and fits_high and (below is None or low is not None) and (above is None or high is not None))

    def said(self) -> list[Any]:
        """As JSON values."""
        return [
            one.isoformat() if isinstance(one, pd.Timestamp) else None if one is None else float(one)
            for one in (*self.inside, *self.outside)
        ]

    @classmethod
    def of(cls, said: Sequence[Any]) -> Border:
        """What `said` gave."""
        border = cls()
        values = [pd.Timestamp(one) if isinstance(one, str) else one for one in said]
        border.inside, border.outside = values[:2], values[2:]
        return border


def _either(choose: Callable[..., Any], one: Any, values: pd.Series, *, least: bool) -> Any:
    if not len(values):
        return one
    other = values.min() if least else values.max()
    return other if one is None else choose(one, other)


def limits_of(expectation: Any) -> tuple[Any, Any]:
    """The limits of a rule between values, as they compare with these."""
    said: Mapping[str, Any] = expectation.configuration.kwargs
    return tuple(pd.Timestamp(one) if one is not None and not isinstance(one, int | float) else one for one in map(said.get, LIMITS))  # type: ignore[return-value]
