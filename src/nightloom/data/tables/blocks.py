"""Tables that are larger than memory: a Parquet file is read a block of rows at a time, its text coded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nightloom.data.tables import coded as of_text
from nightloom.data.tables.coded import coded, coded_column, is_coded, read_coded, spelt

DICTIONARY_BYTES = 1 << 24
"""Most bytes of a row group's distinct values that are written once: text that is written so is read coded at a fifth of the time."""


class StoredTable:
    """A table of canonical columns in a Parquet file, in the place of a frame with coded text.

    Its blocks are read one by one. Columns that are asked for by name are read whole, and so is the table for all else that a frame can.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: int = pq.read_metadata(path).num_rows
        self.no_rows = coded(pq.read_schema(path).empty_table().to_pandas())
        """The columns and their types, without rows."""

    def __len__(self) -> int:
        return self._rows

    def __contains__(self, column: object) -> bool:
        return column in self.no_rows

    def __iter__(self) -> Iterator[str]:
        return iter(map(str, self.no_rows))

    @property
    def columns(self) -> pd.Index:
        """Names of the columns."""
        return self.no_rows.columns

    def __getitem__(self, columns: Any) -> Any:
        if isinstance(columns, str):
            return self.whole([columns])[columns]
        named = isinstance(columns, list) and all(isinstance(one, str) for one in columns)
        return self.whole(columns) if named else self.whole()[columns]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.whole(), name)

    def whole(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """All rows of some columns."""
        return read_coded(self.path, columns)

    def blocks(self, only: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
        """The rows in their order, or some of their columns, a row group at a time; the index is their place in the table."""
        wanted = list(self if only is None else only)
        text = [name for name, column in self.no_rows.items() if is_coded(column)]
        first = 0
        with pq.ParquetFile(self.path, read_dictionary=text) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=wanted).unify_dictionaries()
                columns = {name: table.column(name).to_pandas() for name in wanted}
                yield pd.DataFrame(columns, copy=False).set_axis(pd.RangeIndex(first, first + table.num_rows))
                first += table.num_rows

    def texts(self, name: str) -> Iterator[pa.ChunkedArray]:
        """A column of text, spelt out, a row group at a time."""
        with pq.ParquetFile(self.path) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, columns=[name]).column(0)


def in_blocks(table: pd.DataFrame | StoredTable) -> Iterator[pd.DataFrame]:
    """A table's rows in their order, a block at a time; the index is their place in the table. One without rows has one block."""
    if isinstance(table, StoredTable):
        yield from table.blocks() if len(table) else [table.no_rows]
        return
    for first in range(0, max(len(table), 1), of_text.ROW_GROUP):
        block = table.iloc[first : first + of_text.ROW_GROUP]
        yield block.set_axis(pd.RangeIndex(first, first + len(block)))


def head_of(table: pd.DataFrame | StoredTable) -> pd.DataFrame:
    """A table's columns and their types, without rows."""
    return table.no_rows if isinstance(table, StoredTable) else table.iloc[:0]


class SpeltWriter:
    """Writes a table as Parquet, its text spelt out, as pandas would write it, from rows that come a few at a time.

    Args:
        path: the file.
        head: its columns and their types, text coded or not.
    """

    def __init__(self, path: Path, head: pd.DataFrame) -> None:
        self.rows = 0
        self._waiting: list[pd.DataFrame] = []
        schema = pa.Schema.from_pandas(spelt(head), preserve_index=False)
        self._writer = pq.ParquetWriter(path, schema, dictionary_pagesize_limit=DICTIONARY_BYTES)

    def __enter__(self) -> SpeltWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._waiting or not self.rows:
            self._write()
        self._writer.close()

    def add(self, rows: pd.DataFrame) -> None:
        """More rows; they reach the file as full row groups."""
        while len(rows):
            room = of_text.ROW_GROUP - sum(map(len, self._waiting))
            part, rows = spelt(rows.iloc[:room]), rows.iloc[room:]
            self._waiting.append(part)
            self.rows += len(part)
            if len(part) == room:
                self._write()

    def _write(self) -> None:
        tables = [pa.Table.from_pandas(part, self._writer.schema, preserve_index=False) for part in self._waiting]
        whole = pa.concat_tables(tables) if tables else self._writer.schema.empty_table()
        self._writer.write_table(whole, row_group_size=of_text.ROW_GROUP)
        self._waiting = []


class Texts:
    """The distinct values of a text column that is read in blocks, numbered as they first came."""

    def __init__(self) -> None:
        self.values = pa.array([], pa.large_string())

    def __len__(self) -> int:
        return len(self.values)

    def numbers(self, column: pd.Series) -> NDArray[np.int32]:
        """Each row's number, int32 [rows], after new values have got theirs; -1 where the row has no value."""
        held = column if is_coded(column) else coded_column(column)
        codes = held.cat.codes.to_numpy()
        used = pd.unique(codes)
        used = used[used >= 0]
        found = pa.array(held.cat.categories, from_pandas=True).cast(pa.large_string()).take(pa.array(used))
        place = pc.index_in(found, value_set=self.values)
        new = found.filter(pc.is_null(place))
        numbers = pc.fill_null(place, -1).to_numpy(zero_copy_only=False).astype(np.int32)
        numbers[numbers < 0] = len(self.values) + np.arange(len(new), dtype=np.int32)
        self.values = pa.concat_arrays([self.values, new])
        of_codes = np.full(len(held.cat.categories) + 1, -1, dtype=np.int32)  # a place more, for a missing value, whose code is -1
        of_codes[used] = numbers
        return of_codes[codes]

    def index(self) -> pd.Index:
        """The values by their numbers."""
        return pd.Index(self.values.to_pandas(), dtype="str")
