"""The catalogue as a bundle keeps it: the columns of `items.parquet` in a file that is read without pandas and pyarrow."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from nightloom.core.columns import CATALOGUE, Columns


def write_catalogue(items: pd.DataFrame, folder: Path) -> None:
    """Write `catalogue.safetensors`.

    Args:
        items: row i for dense item i: `item_id`, described columns, `text`.
        folder: where to; it exists.
    """
    columns = {
        str(name): (column if column.dtype.kind == "f" else column.astype(object).where(column.notna(), None)).tolist()
        for name, column in items.items()
    }
    Columns.write(columns, folder / CATALOGUE)


def read_catalogue(columns: Columns) -> pd.DataFrame:
    """The table that `write_catalogue` was given; integers with missing values come back as floats, as from a CSV file."""
    return pd.DataFrame({name: columns[name] for name in columns.names})
