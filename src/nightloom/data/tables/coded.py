"""Tables whose text is coded: each distinct value once, and an integer a row. A large table of events is held so.

In memory and in time a row then costs its few integers: what is asked of a text is asked once of each distinct value.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

ROW_GROUP = 1 << 20
"""Rows of a row group, as pandas writes them."""


def coded(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its text columns as categories; other columns as they are."""
    return table.assign(**{str(name): coded_column(column) for name, column in table.items() if isinstance(column.dtype, pd.StringDtype)})


def spelt(table: pd.DataFrame) -> pd.DataFrame:
    """The table with text columns as they were before `coded`."""
    return table.assign(**{str(name): spelt_column(column) for name, column in table.items() if is_coded(column)})


def spelt_column(column: pd.Series) -> pd.Series:
    """A column as it was before `coded`."""
    if not is_coded(column):
        return column
    codes = column.cat.codes.to_numpy()
    rows = pa.array(column.cat.categories, from_pandas=True).take(pa.array(codes, mask=codes < 0))
    return rows.to_pandas().astype("str").set_axis(column.index).rename(column.name)


def is_coded(column: pd.Series) -> bool:
    """Whether a column is text, held as categories."""
    return isinstance(column.dtype, pd.CategoricalDtype) and isinstance(column.dtype.categories.dtype, pd.StringDtype)


def codes_of(column: pd.Series) -> NDArray[Any]:
    """An integer a row, the same where a column has the same value, from 0 on; -1 where it has none."""
    return column.cat.codes.to_numpy().astype(np.int32, copy=False) if is_coded(column) else pd.factorize(column)[0]


def files_of(path: Path) -> list[Path]:
    """The files of a table: the path itself, or where it is a folder of parts these, in the order of their names."""
    return sorted(path.glob("*.parquet")) if path.is_dir() else [path]


def read_coded(path: Path, only: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a table of canonical columns that was written as Parquet, or some of its columns, its text coded."""
    columns, schema = {}, pq.read_schema(files_of(path)[0])
    for field in schema if only is None else map(schema.field, only):  # one after the other, so that no second copy is made
        text = pa.types.is_large_string(field.type) or pa.types.is_string(field.type)
        whole = pq.read_table(path, columns=[field.name], read_dictionary=[field.name] if text else None)
        read = whole.unify_dictionaries().to_pandas(ignore_metadata=text)[field.name]
        columns[field.name] = read if is_coded(read) or not text else coded_column(read)  # a table without rows has no dictionary
    return pd.DataFrame(columns, copy=False)


def coded_column(column: pd.Series) -> pd.Series:
    """A column of text as categories."""
    found = pa.array(column, from_pandas=True)
    whole = found if isinstance(found, pa.Array) else found.combine_chunks()
    coded_text = whole.dictionary_encode()
    codes = coded_text.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return pd.Series(pd.Categorical.from_codes(codes, pd.Index(coded_text.dictionary.to_pandas(), dtype="str")), index=column.index)
