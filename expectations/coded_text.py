"""Great Expectations' own questions about text, for text that is coded (`nightloom.data.tables.coded`).

It would spell out every row first. The answer for each distinct value is found once, and holds for all its rows.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from great_expectations.execution_engine import PandasExecutionEngine
from great_expectations.expectations.metrics.column_map_metrics.column_values_match_regex import ColumnValuesMatchRegex
from great_expectations.expectations.metrics.column_map_metrics.column_values_not_match_regex import ColumnValuesNotMatchRegex
from great_expectations.expectations.metrics.map_metric_provider import column_condition_partial

from nightloom.data.tables.coded import holding, is_coded


def matching(column: pd.Series, regex: str) -> pd.Series:
    """Whether each value, of which none is missing, holds what a regular expression describes."""
    return holding(column, regex) if is_coded(column) else column.astype(str).str.contains(regex)


class CodedMatchRegex(ColumnValuesMatchRegex):
    """`ColumnValuesMatchRegex`, registered in its place."""

    @column_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column: pd.Series, regex: str, **kwargs: Any) -> pd.Series:  # noqa: ARG002  # called so by Great Expectations
        return matching(column, regex)


class CodedNotMatchRegex(ColumnValuesNotMatchRegex):
    """`ColumnValuesNotMatchRegex`, registered in its place."""

    @column_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column: pd.Series, regex: str, **kwargs: Any) -> pd.Series:  # noqa: ARG002  # called so by Great Expectations
        return ~matching(column, regex)
