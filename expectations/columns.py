"""Which columns a canonical table must have, and of which type. Without them no row can be judged, so this is checked first."""

from __future__ import annotations

import pandas as pd

from expectations.engine import gx, gxe
from nightloom.config import RunConfig
from nightloom.data.tables.blocks import StoredTable
from nightloom.data.tables.coded import is_coded
from nightloom.data.tables.schema import REQUIRED, Tables


def columns_suite(name: str, tables: Tables, config: RunConfig) -> gx.ExpectationSuite:
    """The suite for the frame that `kinds_of(table)` gives."""
    table = tables.present()[name]
    kinds: dict[str, list[str]] = {column: ["text"] for column in REQUIRED[name]}
    if name == "events":
        kinds["event"] = ["text"]
        if "order" in table and "timestamp" not in table:
            kinds["order"] = ["integer"]
        else:
            kinds["timestamp"] = ["time"]
        if "value" in table or config.prepare.positive_min_value is not None:
            kinds["value"] = ["number", "integer"]
    if name == "items":
        needed = {"number": ["number", "integer"], "image": ["text"]}  # pictures: their digests
        kinds |= {column: needed[kind] for column, kind in tables.features.items() if kind in needed and column in table}
    suite = gx.ExpectationSuite(name=f"{name}, columns")
    for column, allowed in kinds.items():
        suite.add_expectation(
            gxe.ExpectColumnValuesToBeInSet(column=column, value_set=allowed, severity="critical")
            if column in table
            else gxe.ExpectColumnToExist(column=column, severity="critical")
        )
    return suite


def kinds_of(table: pd.DataFrame | StoredTable) -> pd.DataFrame:
    """One row with the type of each column: text, time, integer, number, or pandas' own word.

    Great Expectations compares pandas types by name and knows neither `str` nor `datetime64[ms, UTC]`; it can compare these words.
    """
    typed = table.no_rows if isinstance(table, StoredTable) else table
    return pd.DataFrame([{column: kind_of(typed[column]) for column in typed}])


def kind_of(values: pd.Series) -> str:
    """The type of a column's values, in one word."""
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        return "time"
    if isinstance(values.dtype, pd.StringDtype) or is_coded(values):
        return "text"
    inferred = pd.api.types.infer_dtype(values, skipna=True)
    return {"string": "text", "empty": "text", "floating": "number"}.get(inferred, inferred)
