"""Impressions: everything that was shown, in order of time, with its features and whether it was clicked.

Needs numpy and pandas alone, since training workers on bare machines read these.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nightloom.core.errors import InputError
from nightloom.core.privacy_key import check_fingerprint, fingerprint, keyed_hash
from nightloom.data.preparation.clean import clean, event_times
from nightloom.data.preparation.counters import counters
from nightloom.data.preparation.labels import check_names, positive
from nightloom.data.tables.schema import OWN, Tables

if TYPE_CHECKING:
    from nightloom.config import PrepareConfig

Side = Literal["user", "item", "context"]
FEWEST = 200
"""Fewest rows, clicked or not, before the test part."""


@dataclass(frozen=True)
class Impressions:
    """Rows sorted by time, then by row of the source.

    Attributes:
        times: int64 [rows], milliseconds since 1970 UTC, or the `order` where there are no times.
        clicked: bool [rows].
        test_start: rows from here on are the test part.
        fields: names of the categorical fields.
        sides: of each field, whether it describes the user, the item or the context.
        hashes: int64 [rows, fields], hash of each value; 0 where it is missing.
        numbers: float64 [rows, number_names], NaN where missing.
        number_names: their names.
        has_time: whether times are times, so that a gap between two means something.
        key: fingerprint of the key by which values were hashed; empty without one.
    """

    times: NDArray[np.int64]
    clicked: NDArray[np.bool_]
    test_start: int
    fields: tuple[str, ...]
    sides: tuple[Side, ...]
    hashes: NDArray[np.int64]
    numbers: NDArray[np.float64]
    number_names: tuple[str, ...]
    has_time: bool
    key: str = ""

    def __len__(self) -> int:
        return len(self.times)

    def cutoff(self, share: float) -> int:
        """The row that ends about a share of the rows before the test part; rows of one time stay together."""
        return _at_time(self.times, round(share * self.test_start))

    def counters(self, until: int) -> dict[str, NDArray[np.float64]]:
        """Counters of every field, from rows before `until` alone: a night's model knows no later clicks.

        Without times there is no time since the last: a number of rows in between would mean something else in the next file.
        """
        keys = {field: self.hashes[:, place] for place, field in enumerate(self.fields)}
        found = counters(keys, self.times, self.clicked, np.arange(len(self)) < until)
        return {name: column for name, column in found.items() if self.has_time or not name.endswith(" since")}

    def followed_by(self, shown: pd.DataFrame, times: NDArray[np.int64], key: bytes | None = None) -> Self:
        """These rows, followed by rows whose clicks are not known yet.

        Args:
            shown: columns under the names of the fields and numbers; a column that is not there is missing in every row.
            times: int64 [n], when they are shown, in the unit of the times; not before the last row.
            key: by which the values of these rows were hashed.

        Raises:
            InputError: none of the columns is a field or a number of these rows.
        """
        known = [*self.fields, *self.number_names]
        if not set(known) & set(shown.columns):
            raise InputError(f"the input has the columns {list(shown.columns)}, and none of them is known here. Give some of: {known}")
        if self.key:
            check_fingerprint(key or b"", self.key, "the log of clicks")
        missing = pd.Series([None] * len(shown), dtype=object)
        hashes = [hashed(shown.get(name, missing), key if self.key else None) for name in self.fields]
        numbers = [_numbers(pd.to_numeric(shown.get(name, missing))) for name in self.number_names]
        return replace(
            self,
            times=np.concatenate([self.times, np.maximum(times, self.times[-1] + 1)]),
            clicked=np.concatenate([self.clicked, np.zeros(len(shown), dtype=bool)]),
            hashes=np.concatenate([self.hashes, np.stack(hashes, 1) if hashes else np.zeros((len(shown), 0), dtype=np.int64)]),
            numbers=np.concatenate([self.numbers, np.stack(numbers, 1) if numbers else np.zeros((len(shown), 0))]),
        )

    def save(self, folder: Path) -> None:
        """Write `impressions.npz`, without pickles, and `impressions.json`."""
        arrays = {name: getattr(self, name) for name in ("times", "clicked", "hashes", "numbers")}
        np.savez(folder / "impressions.npz", **arrays)
        fields = {name: getattr(self, name) for name in ("test_start", "fields", "sides", "number_names", "has_time", "key")}
        (folder / "impressions.json").write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        fields: dict[str, Any] = json.loads((folder / "impressions.json").read_text(encoding="utf-8"))
        with np.load(folder / "impressions.npz", allow_pickle=False) as arrays:
            content: dict[str, Any] = dict(arrays)
        content |= {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
        return cls(**content)


def impressions(tables: Tables, prepare: PrepareConfig, test_from: int | None = None, key: bytes | None = None) -> Impressions:
    """Gather what was shown, with its context and what is known of users and items.

    Events are cleaned as for retrieval. Each remaining event is a row, clicked if it is positive. Numeric columns are numbers; all others
    are categorical fields: ids, context columns of the events, and item columns of type category. A field with one value only, or
    without a repeated value, before the test part is left out, since nothing can be learned from it.

    Args:
        tables: canonical, validated tables.
        prepare: rules of cleaning and labels, and the share of the test.
        test_from: time at which the test part begins, where it goes by time (`clicks.test_from`).
        key: by which values are hashed, so that who has the rows can not find people in them by trying ids; None: without.

    Raises:
        InputError: events are all clicked or all not, or too few lie before or in the test part.
    """
    check_names(tables.events["event"].value_counts(), prepare)
    kept, _ = clean(tables.events, prepare)
    events = kept.iloc[np.argsort(event_times(kept), kind="stable")].reset_index(drop=True)
    times, clicked = event_times(events), positive(events, prepare)
    start = _test_start(times, test_from, prepare.test_share)
    if start < FEWEST or start >= len(events) or clicked[:start].all() or not clicked[:start].any():
        raise InputError(
            f"events: {start:,} rows lie before the test part, {int(clicked[:start].sum()):,} of them clicked, and {len(events) - start:,} "
            f"in it. A click head needs {FEWEST} rows or more before it, some clicked and some not. Give impressions that were not clicked "
            "too, name the clicks in prepare.positive_events, or change clicks.test_from or prepare.test_share."
        )
    columns, sides = _columns(events, tables)
    numbers = {name: _numbers(column) for name, column in columns.items() if _is_number(column)}
    fields = {name: hashed(column, key) for name, column in columns.items() if name not in numbers}
    fields = {name: codes for name, codes in fields.items() if _tells(codes[:start])}
    return Impressions(
        times,
        clicked,
        start,
        tuple(fields),
        tuple(sides[name] for name in fields),
        np.column_stack([*fields.values()]) if fields else np.zeros((len(events), 0), dtype=np.int64),
        np.column_stack([*numbers.values()]) if numbers else np.zeros((len(events), 0)),
        tuple(numbers),
        "timestamp" in events,
        fingerprint(key) if key else "",
    )


def hashed(column: pd.Series, key: bytes | None = None) -> NDArray[np.int64]:
    """A hash of each value (SipHash), the same in every process, int64 [rows]; 0 for what is missing."""
    known = column.notna().to_numpy()
    values = np.where(known, column.astype(object).astype(str).to_numpy(dtype=object), "")
    plain = pd.util.hash_array(values) if key is None else pd.util.hash_array(values, hash_key=keyed_hash(key, "clicks", "")[:16])
    return np.where(known, plain.view(np.int64) | 1, 0)


def _columns(events: pd.DataFrame, tables: Tables) -> tuple[dict[str, pd.Series], dict[str, Side]]:
    columns: dict[str, pd.Series] = {"user_id": events["user_id"], "item_id": events["item_id"]}
    sides: dict[str, Side] = {"user_id": "user", "item_id": "item"}
    if tables.items is not None:
        described = tables.items.drop_duplicates("item_id").set_index("item_id")
        for name, feature in tables.features.items():
            if feature in ("category", "number") and name in described:
                columns[f"item {name}"] = described[name].reindex(events["item_id"]).reset_index(drop=True)
                sides[f"item {name}"] = "item"
    for name in events.columns.astype(str):
        if name not in OWN["events"]:
            columns[name], sides[name] = events[name], "context"
    return columns, sides


def _is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype)


def _numbers(column: pd.Series) -> NDArray[np.float64]:
    found = column.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isfinite(found), found, np.nan)


def _tells(codes: NDArray[np.int64]) -> bool:
    _, times = np.unique(codes, return_counts=True)
    return len(times) > 1 and bool((times > 1).any())


def _test_start(times: NDArray[np.int64], test_from: int | None, test_share: float) -> int:
    if test_from is not None:
        return int(np.searchsorted(times, test_from))
    return _at_time(times, round((1 - test_share) * len(times)))


def _at_time(times: NDArray[np.int64], row: int) -> int:
    """The first row of the time that a row has."""
    return int(np.searchsorted(times, times[row])) if row < len(times) else len(times)
