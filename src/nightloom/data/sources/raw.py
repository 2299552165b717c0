"""A table as read, before any meaning is given to it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from nightloom.core.errors import InputError

UNREADABLE_COLUMNS = ("file", "row", "raw", "reason")
LONGEST_NAME, MOST_NAMES = 64, 40
"""Characters of a column's name, and names, that a message shows."""
NO_NAME = re.compile(r"[=@*{}<>,;|`\\]|:.*:|\$.*\$")
"""What names of columns do not hold, but lines of password files, keys, logs and settings do."""


@dataclass(frozen=True)
class RawTable:
    """One table as read, before any meaning is given to it.

    Attributes:
        frame: the rows; its index is the row number in the source file (1-based, header not counted).
        place: where it came from, for messages; holds no password.
        parts: name of each part and its number of rows in `frame`, in order.
        unreadable: rows that have no place in `frame`: `file`, `row`, `raw`, `reason`.
    """

    frame: pd.DataFrame
    place: str
    parts: Sequence[tuple[str, int]]
    unreadable: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(UNREADABLE_COLUMNS)))

    @classmethod
    def of(cls, frame: pd.DataFrame, place: str) -> RawTable:
        """A table of one part whose rows are all readable."""
        return cls(frame.set_axis(pd.RangeIndex(1, len(frame) + 1)), place, [(place, len(frame))])

    def files(self, positions: np.ndarray) -> np.ndarray:
        """Name of the part that holds each of some rows, given by position in `frame`."""
        ends = np.cumsum([rows for _, rows in self.parts])
        return np.array([name for name, _ in self.parts], dtype=object)[np.searchsorted(ends, positions, side="right")]


def joined(tables: list[RawTable], place: str, name: str) -> RawTable:
    """The parts of a table, one after the other.

    A column whose type differs from part to part keeps each part's own values: as one type, integers would become floats.

    Raises:
        InputError: the parts differ in their columns.
    """
    first = tables[0]
    if len(tables) == 1:
        return first
    for table in tables:
        if set(table.frame.columns) != set(first.frame.columns):
            odd = sorted(set(table.frame.columns) ^ set(first.frame.columns))
            shown = f" {odd}" if are_names(list(table.frame.columns)) and are_names(list(first.frame.columns)) else ""
            raise InputError(
                f"{name}: {table.place} and {first.place} differ in columns{shown}. Give all parts of a folder the same columns."
            )
    mixed = [column for column in first.frame if len({table.frame[column].dtype for table in tables}) > 1]
    return RawTable(
        pd.concat([table.frame.astype(dict.fromkeys(mixed, object)) for table in tables]),
        place,
        [part for table in tables for part in table.parts],
        pd.concat([table.unreadable for table in tables], ignore_index=True),
    )


def are_names(columns: Sequence[str]) -> bool:
    """Whether a first line looks like names of columns: several, short and printable.

    A message shows no other line: whoever may start a night but not read a file could otherwise have it read out by naming it.
    """
    fits = (len(one) <= LONGEST_NAME and one.isprintable() and not NO_NAME.search(one) for one in columns)
    return len(columns) > 1 and any(columns) and all(fits)


def told_columns(columns: Sequence[str]) -> str:
    """The columns of a table, in a sentence for messages; of what looks like no table nothing is told."""
    if len(columns) == 1:
        return "It has one column only: it is no table, or one with another separator (data.separator)."
    if not are_names(columns):
        return "Its first line does not look like names of columns, so it is not shown here."
    more = f" and {len(columns) - MOST_NAMES:,} more" if len(columns) > MOST_NAMES else ""
    return f"It has: {', '.join(columns[:MOST_NAMES])}{more}."


def unique(columns: list[str], place: object, name: str) -> None:
    """Refuse two columns of one name."""
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice and not are_names(columns):
        raise InputError(f"{name}: {place} has two columns of one name. {told_columns(columns)} Is it a table?")
    if twice:
        raise InputError(f"{name}: {place} has more than one column named {', '.join(map(repr, twice))}. Rename all but one.")
