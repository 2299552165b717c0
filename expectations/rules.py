"""Rules: what Great Expectations checks, and which rows break it, in one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from expectations.engine import FailureSeverity, gxe
from nightloom.data.tables.coded import is_coded, spelt

FLAG = "ok__"
"""Prefix of helper columns: whether each row keeps a rule that reads more than its own column."""


@dataclass(frozen=True)
class RowRule:
    """A rule that each row keeps or breaks; rows that break it go to the quarantine.

    It is given in one of two ways, never both, so that the check and the quarantined rows cannot differ.

    Attributes:
        column: the column it is about.
        name: short and plain, as the quarantine shows it.
        breaks: table -> bool [rows], true where the rule is broken; Great Expectations gets it as a helper column. For rules
            that look at other rows or tables, or that a large value_set would make slow.
        expectation: a column map expectation, which itself finds the rows that break it.
        reads: the columns that `breaks` gets; empty: all of the table. Of a large table the fewer the better, as their text is spelt out.
        alone: whether `breaks` judges each row by itself. Of a table on disk it then gets a block of rows at a time, else all at once.
    """

    column: str
    name: str
    breaks: Callable[[pd.DataFrame], pd.Series] | None = None
    expectation: Any = None
    reads: tuple[str, ...] = ()
    alone: bool = False

    def __post_init__(self) -> None:
        if (self.breaks is None) == (self.expectation is None):
            raise ValueError(f"rule '{self.column}: {self.name}': give either `breaks` or `expectation`")

    @property
    def flag(self) -> str:
        """Name of the helper column."""
        return f"{FLAG}{self.column}_{self.name}".replace(" ", "_")

    def broken(self, table: pd.DataFrame) -> NDArray[np.bool_]:
        """Where `breaks` says that the rule is broken, bool [rows]; text may be coded (`nightloom.data.tables.coded`)."""
        if self.breaks is None:
            raise ValueError(f"rule '{self.column}: {self.name}' is an expectation, which Great Expectations judges")
        if self.alone and len(self.reads) == 1 and is_coded(table[self.reads[0]]):  # asked once of each distinct value
            column = table[self.reads[0]].cat
            values = column.categories.to_series(index=pd.RangeIndex(len(column.categories))).reindex(range(len(column.categories) + 1))
            of_values = self.breaks(values.to_frame(self.reads[0])).to_numpy(dtype=bool, na_value=False)
            return of_values[column.codes.to_numpy()]  # a missing value, code -1, is the last one
        found = self.breaks(spelt(table[list(self.reads)] if self.reads else table))
        return found.to_numpy(dtype=bool, na_value=False)

    def expected(self) -> Any:
        """The expectation for Great Expectations."""
        if self.expectation is not None:
            return self.expectation
        return gxe.ExpectColumnValuesToBeInSet(column=self.flag, value_set=[True], severity="critical", notes=f"{self.column}: {self.name}")


@dataclass(frozen=True)
class TableRule:
    """A rule about a table's good rows as a whole. A critical expectation stops the night; warning and info are noted.

    Attributes:
        column: the column it is about, or "" for the table.
        name: short and plain.
        expectation: what Great Expectations checks, with its severity.
        remedy: what to do when it is broken.
    """

    column: str
    name: str
    expectation: Any
    remedy: str

    @property
    def severity(self) -> str:
        """critical, warning or info."""
        return FailureSeverity(self.expectation.severity).value


@dataclass(frozen=True)
class Contract:
    """All rules of one table."""

    rows: tuple[RowRule, ...] = ()
    table: tuple[TableRule, ...] = ()
