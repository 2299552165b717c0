"""What looks right and may not be: ids of two tables that do not meet, event names that look alike, one user with a large share."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from nightloom.core.counts import added
from nightloom.core.errors import InputError
from nightloom.data.tables.blocks import Texts
from nightloom.data.tables.schema import Tables

LARGE_SHARE = 0.2
"""Share of all events from which on one user is worth a warning."""
FEW_EVENTS, FEW_USERS = 100, 10
"""Below so many events or users a large share says nothing."""
FEW_KNOWN = 0.5
"""Share of the events' users that the users table should know."""

SPELLINGS: dict[str, Callable[[pd.Series], pd.Series]] = {
    "in upper and lower case": lambda ids: ids.str.lower(),
    "in leading zeros": lambda ids: ids.str.lstrip("0"),
    "in quotes around them": lambda ids: ids.str.strip("\"'"),
    "in what stands before the number": lambda ids: ids.str.replace(r"^\D+", "", regex=True),
}
"""Changes that may make ids of two tables meet."""


class Seen:
    """What is in some columns of the events, which may come some at a time."""

    def __init__(self) -> None:
        self._texts = {column: Texts() for column in ("user_id", "item_id", "event")}
        self._counts = {column: np.zeros(0, dtype=np.int64) for column in self._texts}
        self.rows = 0

    @classmethod
    def of(cls, events: pd.DataFrame) -> Seen:
        """What is in all of them."""
        seen = cls()
        seen.add(events)
        return seen

    def copy(self) -> Seen:
        """The same, to which more may be added."""
        found = Seen()
        for column, texts in self._texts.items():
            found._texts[column] = Texts.of(texts.values)
        found._counts, found.rows = dict(self._counts), self.rows
        return found

    def write(self, folder: Path) -> None:
        """Write it as files of a folder."""
        for column, texts in self._texts.items():
            pq.write_table(pa.table({"value": texts.values, "rows": self._counts[column]}), folder / f"seen_{column}.parquet")

    @classmethod
    def read(cls, folder: Path, rows: int) -> Seen:
        """Read what `write` wrote of so many events."""
        seen = cls()
        seen.rows = rows
        for column in seen._texts:
            table = pq.read_table(folder / f"seen_{column}.parquet")
            seen._texts[column] = Texts.of(table["value"].combine_chunks())
            seen._counts[column] = table["rows"].to_numpy()
        return seen

    def add(self, events: pd.DataFrame) -> None:
        """More of them."""
        self.rows += len(events)
        for column, texts in self._texts.items():
            numbers = texts.numbers(events[column])
            self._counts[column] = added(self._counts[column], np.bincount(numbers[numbers >= 0], minlength=len(texts)))

    def values(self, column: str) -> pd.Series:
        """The distinct values of a column, in the order in which they first came."""
        return self._texts[column].index().to_series(index=pd.RangeIndex(len(self._texts[column])))

    def counts(self, column: str) -> pd.Series:
        """Rows of each value of a column, the most frequent first; as `pandas.Series.value_counts`."""
        return pd.Series(self._counts[column], self._texts[column].index()).sort_values(ascending=False, kind="stable")


def ids_meet(tables: Tables, seen: Seen) -> None:
    """Refuse an items or users table of which no id is in the events.

    Args:
        tables: canonical tables.
        seen: what is in the events.

    Raises:
        InputError: two tables have no id in common; names ids of both.
    """
    for name, own in (("items", "item_id"), ("users", "user_id")):
        table = tables.present().get(name)
        events = seen.values(own)
        if table is None or events.isin(table[own]).any():
            continue
        known = table[own].drop_duplicates()
        theirs, ours = (", ".join(map(repr, ids.head(3))) for ids in (known, events))
        raise InputError(
            f"{name}: none of its {len(known):,} ids is in the events: {name} has {theirs}, events have {ours}{_how_alike(events, known)}. "
            f"Write both in one spelling, or correct data.columns.{name}.{own} or data.columns.events.{own}."
        )


def oddities(tables: Tables, seen: Seen) -> list[str]:
    """Sentences on what a person should look at; nothing is changed."""
    found = _names_alike(seen.counts("event"))
    counts = seen.counts("user_id")
    if seen.rows >= FEW_EVENTS and len(counts) >= FEW_USERS and counts.iloc[0] >= LARGE_SHARE * seen.rows:
        found.append(
            f"events: {counts.iloc[0]:,} of {seen.rows:,} ({counts.iloc[0] / seen.rows:.0%}) are of one user, {counts.index[0]!r}. "
            "Is that a person, or an import, a robot or a name for guests? Leave its events out if it is none"
        )
    if tables.users is not None:
        users = pd.Series(counts.index)
        unknown = users[~users.isin(tables.users["user_id"])]
        if len(unknown) > FEW_KNOWN * len(users):
            found.append(
                f"users: {len(unknown):,} of {len(users):,} users with events are not in the users table, for example "
                f"{unknown.iloc[0]!r}: slices by attributes hold the others only"
            )
    return found


def _how_alike(events: pd.Series, known: pd.Series) -> str:
    """What makes ids of two tables differ, where one change makes them meet."""
    for words, change in SPELLINGS.items():
        changed = change(events)
        if changed[changed != ""].isin(change(known)).any():
            return f" (they differ {words})"
    return ""


def _names_alike(counts: pd.Series) -> list[str]:
    """Event names that differ in case and signs alone, of the rows of each."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in map(str, counts.index):
        alike[re.sub(r"[\W_]+", "", name.casefold())].append(name)
    return [
        f"events: {' and '.join(f'{name!r} ({counts[name]:,} rows)' for name in group)} look like one event name in several spellings; "
        "each counts as an event type of its own. Write them alike, or name all of them in prepare.positive_events"
        for group in alike.values()
        if len(group) > 1
    ]
