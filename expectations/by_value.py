"""Rules that look at one value alone, judged once for each distinct value: Great Expectations judges, and the rows are counted here.

A column of text that is coded, or of flags, has few distinct values. What is said of its rows is what would be said had each been judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nightloom.data.tables.coded import is_coded

ALONE = {
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
        if "element_count" not in result.result:
            return result  # it could not be judged, and says why
        bad = self.values.index.isin(result.result.get("unexpected_index_list") or [])
        missing = self.values.iloc[:, 0].isna().to_numpy()
        rows, metric = np.flatnonzero(self.rows(bad))[:EXAMPLES], expectation.map_metric
        measured = {
            "table.row_count": len(self.column),
            "column_values.nonnull.unexpected_count": int(self.counts[missing].sum()),
            f"{metric}.unexpected_count": int(self.counts[bad].sum()),
            f"{metric}.unexpected_values": list(self.column.iloc[rows]),
            f"{metric}.unexpected_index_list": self.column.index[rows].tolist(),
        }
        # What Great Expectations makes of measurements; it has no public name.
        found = expectation._validate(measured, {"result_format": "SUMMARY"})
        result.success, result.result = found["success"], found["result"]
        return result
