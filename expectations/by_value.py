"""Rules that look at one value alone, judged once for each distinct value: Great Expectations judges, and the rows are counted here.

A column of text that is coded, or of flags, has few distinct values. What is said of its rows is what would be said had each been judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nightloom.data.tables.coded import is_coded

ALONE = {
    "expect_column_values_to_be_between",
    "expect_column_values_to_be_in_set",
    "expect_column_values_to_be_null",
    "expect_column_values_to_match_regex",
    "expect_column_values_to_not_be_in_set",
    "expect_column_values_to_not_be_null",
    "expect_column_values_to_not_match_regex",
}
"""Types of expectations that judge each value by itself."""

EXAMPLES = 20
"""Failing rows that a result lists, as in Great Expectations."""


def judges_alone(expectation: Any) -> bool:
    """Whether an expectation judges each value of one column by itself."""
    return expectation.expectation_type in ALONE and not expectation.configuration.kwargs.get("row_condition")


@dataclass(frozen=True)
class Distinct:
    """The distinct values of a column.

    Attributes:
        column: the column.
        values: those that some row has, with a missing one last where some row has none; one row each.
        of_rows: integers [rows], the row of `values` that each row of the column has.
        counts: int64 [values], rows of each.
    """

    column: pd.Series
    values: pd.DataFrame
    of_rows: NDArray[np.integer]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, column: pd.Series) -> Distinct | None:
        """The distinct values of a column of coded text or flags; None for any other, which may have as many as rows."""
        if is_coded(column):
            codes, values = column.cat.codes.to_numpy(), column.cat.categories.to_series(index=pd.RangeIndex(len(column.cat.categories)))
        elif column.dtype == bool:
            codes, values = column.to_numpy().view(np.int8), pd.Series([False, True])
        else:
            return None
        counts = np.bincount(codes.astype(np.intp) + 1, minlength=len(values) + 1)
        counts = np.append(counts[1:], counts[0])  # a missing value, code -1, comes last
        there = np.flatnonzero(counts)
        place = np.full(len(counts), -1, dtype=np.int32)
        place[there] = np.arange(len(there))
        values = values.reindex(range(len(values) + 1)) if counts[-1] else values
        return cls(column, values.iloc[there].reset_index(drop=True).to_frame(column.name), place[codes], counts[there])

    def rows(self, bad: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The rows, bool [rows], whose value is among some, bool [values]."""
        return bad[self.of_rows] if len(bad) else np.zeros(0, dtype=bool)

    def counted(self, result: Any, expectation: Any) -> Any:
        """The result that an expectation has on all rows (SUMMARY), made of what it has on `values`, whose failing ones are listed."""
        count = Count()
        count.add(self.column, self.rows(self.values.index.isin(result.result.get("unexpected_index_list") or [])))
        return count.put(result, expectation)


@dataclass
class Count:
    """What one expectation, which judges each value by itself, finds in the rows of a column, which may come some at a time.

    Attributes:
        rows: all of them.
        missing: those without a value.
        bad: those that fail.
        values: the values of the first that fail.
        places: their index.
    """

    rows: int = 0
    missing: int = 0
    bad: int = 0
    values: list[Any] = field(default_factory=list)
    places: list[Any] = field(default_factory=list)

    def add(self, column: pd.Series, bad: NDArray[np.bool_]) -> None:
        """Count more rows, in their order; `bad` are those that fail."""
        self.rows += len(column)
        self.missing += int(column.isna().sum())
        self.bad += int(np.count_nonzero(bad))
        if len(self.values) < EXAMPLES:
            first = np.flatnonzero(bad)[: EXAMPLES - len(self.values)]
            self.values += list(column.iloc[first])
            self.places += column.index[first].tolist()

    def put(self, result: Any, expectation: Any) -> Any:
        """Put what was found (SUMMARY) into a result of Great Expectations on some other rows."""
        if "element_count" not in result.result:
            return result  # it could not be judged, and says why
        metric = expectation.map_metric
        measured = {
            "table.row_count": self.rows,
            "column_values.nonnull.unexpected_count": self.missing,
            f"{metric}.unexpected_count": self.bad,
            f"{metric}.unexpected_values": self.values,
            f"{metric}.unexpected_index_list": self.places,
        }
        return measured_as(measured, result, expectation)


def measured_as(measured: Mapping[str, Any], result: Any, expectation: Any) -> Any:
    """A result with what Great Expectations makes of measurements (SUMMARY); that function of it has no public name."""
    found = expectation._validate(measured, {"result_format": "SUMMARY"})
    result.success, result.result = found["success"], found["result"]
    return result
