"""Tables whose cells have types: Parquet, Arrow and Excel. Integers stay integers next to missing values."""

from __future__ import annotations

import io
import mmap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq

from nightloom.core.errors import InputError
from nightloom.data.sources.packed import Content
from nightloom.data.sources.raw import RawTable, unique

NULLABLE = {
    pa.int8(): pd.Int8Dtype(),
    pa.int16(): pd.Int16Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.uint8(): pd.UInt8Dtype(),
    pa.uint16(): pd.UInt16Dtype(),
    pa.uint32(): pd.UInt32Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
}
"""Types that keep integers exact next to missing values."""
EXCEL_DIGITS = 10**15
"""Excel keeps 15 digits of a number."""


def read_columns(content: Content, form: str, name: str, place: str) -> RawTable:
    """Read a Parquet or Arrow (Feather) table.

    Raises:
        InputError: it is cut short or damaged, or has a column twice.
    """
    source = pa.BufferReader(pa.py_buffer(content))
    with _whole_file(content, form, name, place):
        table = pq.ParquetFile(source).read() if form == "parquet" else pyarrow.feather.read_table(source, memory_map=False)
        checked = _checked(table, name, place)
    return RawTable.of(checked.to_pandas(ignore_metadata=True, types_mapper=NULLABLE.get), place)


def column_pieces(content: Content, path: Path, name: str, place: str, rows: int, skip: int = 0) -> Iterator[RawTable]:
    """What `read_columns` reads of a Parquet file, at most some rows at a time.

    Args:
        content: its bytes, unpacked; where they are mapped the file is read in their place, since what is mapped counts as memory.
        path: the file.
        name: which table this is, for messages.
        place: the file, for messages.
        rows: at most so many at once.
        skip: rows that are left out at the beginning.

    Raises:
        InputError: see `read_columns`.
    """
    first = 1 + skip
    with _whole_file(content, "parquet", name, place):
        source = pa.OSFile(str(path)) if isinstance(content, mmap.mmap) else pa.BufferReader(pa.py_buffer(content))
        file = pq.ParquetFile(source, pre_buffer=False)
        ends = np.cumsum([file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)])
        begin = int(np.searchsorted(ends, skip, side="right"))
        skip -= int(ends[begin - 1]) if begin else 0
        groups = range(begin, file.num_row_groups)
        pieces = file.iter_batches(rows, row_groups=list(groups)) if file.metadata.num_rows else iter([file.schema_arrow.empty_table()])
    while True:
        with _whole_file(content, "parquet", name, place):
            piece = next(pieces, None)
            if piece is None:
                return
            if skip >= len(piece) > 0:
                skip -= len(piece)
                continue
            piece, skip = piece.slice(skip), 0
            checked = _checked(pa.Table.from_batches([piece]) if isinstance(piece, pa.RecordBatch) else piece, name, place)
        frame = checked.to_pandas(ignore_metadata=True, types_mapper=NULLABLE.get)
        yield RawTable(frame.set_axis(pd.RangeIndex(first, first + len(frame))), place, [(place, len(frame))])
        first += len(frame)


@contextmanager
def _whole_file(content: Content, form: str, name: str, place: str) -> Iterator[None]:
    """Say in words that a file is damaged."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        spoken = "Parquet" if form == "parquet" else "Arrow"
        raise InputError(
            f"{name}: {place} ({len(content):,} bytes) is not a whole {spoken} file ({error}). Was it cut short? Write it again."
        ) from error


def _checked(table: pa.Table, name: str, place: str) -> pa.Table:
    """A table without pandas' own index.

    Raises:
        pyarrow.ArrowException: it is damaged.
        InputError: it has a column twice.
    """
    table = table.replace_schema_metadata(None)  # what pandas noted of itself is not read, nor its damage
    table.validate(full=True)
    table = table.select([index for index, column in enumerate(table.column_names) if not column.startswith("__index_level_")])
    unique(table.column_names, place, name)
    return table


def read_workbook(content: Content, name: str, place: str, header: bool) -> RawTable:
    """Read the sheet of an Excel workbook; its first row names the columns.

    Raises:
        InputError: it is damaged, or more than one of its sheets holds a table.
    """
    try:
        import openpyxl
    except ModuleNotFoundError:
        raise InputError(f"{name}: {place} is an Excel workbook, which needs: pip install openpyxl") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of styles
            book = openpyxl.load_workbook(io.BytesIO(content[:]), read_only=True, data_only=True)
            sheets = {sheet.title: [list(row) for row in sheet.iter_rows(values_only=True)] for sheet in book.worksheets}
            book.close()
    except Exception as error:  # openpyxl lets through what zipfile, zlib and its parser raise at damage
        raise InputError(f"{name}: {place} is not a whole Excel workbook ({error}). Save it again.") from error
    filled = {title: kept for title, rows in sheets.items() if (kept := _filled(rows))}
    if len(filled) != 1:
        has = f"has tables in {len(filled)} sheets: {', '.join(filled)}" if filled else "is empty"
        raise InputError(f"{name}: the workbook {place} {has}. Save the one that is meant as CSV, or in a workbook of its own.")
    rows = next(iter(filled.values()))
    width = max(len(row) for _, row in rows)
    names = ["" if cell is None else str(cell).strip() for cell in rows[0][1]] if header else [str(at) for at in range(1, width + 1)]
    while names and not names[-1]:
        names.pop()
    unique(names, place, name)
    body = rows[1:] if header else rows
    wide = [row for row in body if any(cell is not None for cell in row[1][len(names) :])]
    kept = [row for row in body if row not in wide] if wide else body
    frame = pd.DataFrame(
        {own: pd.Series([_cell(row[at] if at < len(row) else None) for _, row in kept], dtype=object) for at, own in enumerate(names)}
    ).set_axis(pd.Index([number - bool(header) for number, _ in kept], dtype="int64"))
    unreadable = pd.DataFrame(
        {
            "file": place,
            "row": pd.Series([number - bool(header) for number, _ in wide], dtype="int64"),
            "raw": [", ".join("" if cell is None else str(cell) for cell in row) for _, row in wide],
            "reason": f"cells beyond the {len(names)} columns that have a name",
        }
    )
    return RawTable(frame, place, [(place, len(frame))], unreadable)


def _filled(rows: list[list[Any]]) -> list[tuple[int, list[Any]]]:
    """Rows with any cell, each with its number in the sheet (from 1)."""
    return [(at, row) for at, row in enumerate(rows, start=1) if any(cell is not None and cell != "" for cell in row)]


def _cell(value: Any) -> Any:
    """A cell; a number with more digits than Excel keeps is a floating-point number, which is refused as an id."""
    return float(value) if type(value) is int and abs(value) >= EXCEL_DIGITS * 10 else value
