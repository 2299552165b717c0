"""Tables that are larger than memory: read a block of rows at a time, text coded, from a Parquet file or a folder of parts.

A part is a file of one block. All parts of a snapshot's table but the last hold `ROW_GROUP` rows, so that rows which are added at the end
leave the parts before as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nightloom.data.tables import coded as of_text
from nightloom.data.tables.coded import coded, coded_column, files_of, is_coded, read_coded, spelt
from nightloom.data.tables.kept import link

DICTIONARY_BYTES = 1 << 24
"""Most bytes of a row group's distinct values that are written once: text that is written so is read coded at a fifth of the time."""


class StoredTable:
    """A table of canonical columns in a Parquet file, or a folder of parts, in the place of a frame with coded text.

    Its blocks are read one by one. Columns that are asked for by name are read whole, and so is the table for all else that a frame can.

    Args:
        path: the file or folder.
        digests: of the blocks, where they are known (`nightloom.data.tables.snapshot.block_digest`).
    """

    def __init__(self, path: Path, digests: Sequence[str] = ()) -> None:
        self.path, self.digests = path, list(digests)
        self.ends = np.cumsum([pq.read_metadata(file).num_rows for file in files_of(path)])
        """Rows up to the end of each part."""
        self.no_rows = coded(pq.read_schema(files_of(path)[0]).empty_table().to_pandas())
        """The columns and their types, without rows."""

    def __len__(self) -> int:
        return int(self.ends[-1])

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

    def blocks(self, only: Sequence[str] | None = None, skip: int = 0, end: int | None = None) -> Iterator[pd.DataFrame]:
        """The rows in their order, or some of their columns, a block at a time; the index is their place in the table.

        Args:
            only: the columns; None: all.
            skip: parts that are left out at the beginning.
            end: the part before which the rows end; None: to the last.
        """
        for first, group in self.groups(only, skip, end):
            columns = {name: group.column(name).to_pandas() for name in group.column_names}
            yield pd.DataFrame(columns, copy=False).set_axis(pd.RangeIndex(first, first + len(group)))

    def groups(self, only: Sequence[str] | None = None, skip: int = 0, end: int | None = None) -> Iterator[tuple[int, pa.Table]]:
        """The same as Arrow reads it, each with the place of its first row. Coded text costs a third of that in a frame."""
        wanted = list(self if only is None else only)
        text = [name for name, column in self.no_rows.items() if is_coded(column)]
        first = int(self.ends[skip - 1]) if skip else 0
        for path in files_of(self.path)[skip:end]:
            with pq.ParquetFile(path, read_dictionary=text) as file:
                for number in range(file.num_row_groups):
                    group = file.read_row_group(number, columns=wanted).unify_dictionaries()
                    if len(group):
                        yield first, group
                    first += len(group)

    def part_of(self, row: int) -> int:
        """The number of the part that holds a row."""
        return int(np.searchsorted(self.ends, row, side="right"))


def in_blocks(table: pd.DataFrame | StoredTable, begin: int = 0, end: int | None = None) -> Iterator[pd.DataFrame]:
    """A table's rows in their order, a block at a time; the index is their place in the table. One without rows has one block.

    Args:
        table: in memory or on disk.
        begin: the part with which a table on disk begins.
        end: the part before which it ends; None: to the last.
    """
    if isinstance(table, StoredTable):
        yield from table.blocks(skip=begin, end=end) if len(table) else [table.no_rows]
        return
    for first in range(0, max(len(table), 1), of_text.ROW_GROUP):
        block = table.iloc[first : first + of_text.ROW_GROUP]
        yield block.set_axis(pd.RangeIndex(first, first + len(block)))


def numbered(
    table: pd.DataFrame | StoredTable, texts: Mapping[str, Texts], others: Sequence[str], skip: int = 0, end: int | None = None
) -> Iterator[tuple[pd.DataFrame, dict[str, NDArray[np.int32]]]]:
    """Some columns of a table, a block at a time, as `in_blocks` gives them, and the numbers of others' values.

    Args:
        table: canonical.
        texts: the columns of text whose values are numbered.
        others: the columns that are given.
        skip: parts of a table on disk that are left out at the beginning.
        end: the part before which it ends; None: to the last.
    """
    if not isinstance(table, StoredTable) or not len(table):
        for block in in_blocks(table):
            yield block[list(others)], {name: one.numbers(block[name]) for name, one in texts.items()}
        return
    for first, group in table.groups([*texts, *(name for name in others if name not in texts)], skip, end):
        frame = pd.DataFrame({name: group.column(name).to_pandas() for name in others}, copy=False)
        numbers = {name: one.numbers_of(group.column(name)) for name, one in texts.items()}
        yield frame.set_axis(pd.RangeIndex(first, first + len(group))), numbers


def picked(table: pd.DataFrame | StoredTable, chosen: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.int64], pd.DataFrame]]:
    """Some of a table's rows, a block at a time, text spelt out: their places, and the rows numbered from 0 on."""
    if not isinstance(table, StoredTable):
        for block in in_blocks(table):
            mine = np.flatnonzero(chosen[block.index])
            yield block.index.to_numpy()[mine], spelt(block.iloc[mine].reset_index(drop=True))
        return
    for first, group in table.groups() if chosen.any() else ():
        mine = np.flatnonzero(chosen[first : first + len(group)])
        rows = group.take(pa.array(mine))
        spelt_out = [one.cast(one.type.value_type) if pa.types.is_dictionary(one.type) else one for one in rows.columns]
        yield first + mine, pa.Table.from_arrays(spelt_out, rows.column_names).to_pandas()


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
        self.path, self.rows = path, 0
        self.schema = pa.Schema.from_pandas(spelt(head), preserve_index=False)
        self._waiting: list[pd.DataFrame] = []
        self._open()

    def __enter__(self) -> SpeltWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._waiting or not self.rows:
            self._write()
        self._close()

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
        group = self._group()
        self._waiting = []
        self._take(group)

    def _group(self) -> pa.Table:
        tables = [pa.Table.from_pandas(part, self.schema, preserve_index=False) for part in self._waiting]
        return pa.concat_tables(tables) if tables else self.schema.empty_table()

    def _open(self) -> None:
        self._writer = pq.ParquetWriter(self.path, self.schema, dictionary_pagesize_limit=DICTIONARY_BYTES)

    def _take(self, group: pa.Table) -> None:
        self._writer.write_table(group, row_group_size=of_text.ROW_GROUP)

    def _close(self) -> None:
        self._writer.close()


class PartsWriter(SpeltWriter):
    """Writes a table as a folder of parts in the same way; a table of one part is that file.

    Args:
        path: the folder, or the file.
        head: see `SpeltWriter`.
        digest: gives the digest of a block.

    Attributes:
        digests: of the blocks so far.
    """

    def __init__(self, path: Path, head: pd.DataFrame, digest: Callable[[pa.Table], str]) -> None:
        self.digests: list[str] = []
        self._digest = digest
        super().__init__(path, head)

    def go_on(self, parts: Sequence[Path], digests: Sequence[str]) -> None:
        """Begin with parts that were written before, which are linked; nothing may have been added yet."""
        for number, part in enumerate(parts):
            link(part, self.path / part_name(number))
        self.digests = list(digests)
        self.rows = len(parts) * of_text.ROW_GROUP

    def waiting(self) -> pa.Table:
        """The rows after the last part."""
        return self._group()

    def _open(self) -> None:
        self.path.mkdir()

    def _take(self, group: pa.Table) -> None:
        whole = group.combine_chunks()  # so that the file does not depend on how the rows came
        write_part(self.path / part_name(len(self.digests)), whole)
        self.digests.append(self._digest(whole))

    def _close(self) -> None:
        if len(self.digests) == 1:
            alone = self.path.rename(self.path.with_name(f".{self.path.name}"))
            (alone / part_name(0)).rename(self.path)
            alone.rmdir()


class PartByPart:
    """Writes what stays of a table on disk: of a table in parts each part by itself, one of which all rows stay linked.

    Args:
        path: the file, or where the table is in parts the folder.
        table: that the rows are of.
    """

    def __init__(self, path: Path, table: StoredTable) -> None:
        self._path, self._table = path, table
        self._parts = files_of(table.path) if table.path.is_dir() else []
        self._writer = None if self._parts else SpeltWriter(path, table.no_rows)
        self._schema = pa.Schema.from_pandas(spelt(table.no_rows), preserve_index=False)
        if self._parts:
            path.mkdir()

    def __enter__(self) -> PartByPart:
        return self

    def __exit__(self, *given: object) -> None:
        if self._writer:
            self._writer.__exit__(*given)
        elif not any(self._path.iterdir()):
            write_part(self._path / part_name(0), self._schema.empty_table())

    def go_on(self, part: Path) -> None:
        """What stayed of a part before, under the part's name."""
        link(part, self._path / part.name)

    def add(self, rows: pd.DataFrame, block: pd.DataFrame) -> None:
        """What stays of the next block."""
        if self._writer:
            self._writer.add(rows)
            return
        part = self._table.part_of(int(block.index[0]))
        if len(rows) == len(block):
            link(self._parts[part], self._path / part_name(part))
        elif len(rows):
            write_part(self._path / part_name(part), pa.Table.from_pandas(spelt(rows), self._schema, preserve_index=False))


def part_name(number: int) -> str:
    """The name of a part's file, by its number from 0 on."""
    return f"{number:06}.parquet"


def write_part(path: Path, block: pa.Table) -> None:
    """Write a block as a file of one row group."""
    pq.write_table(block, path, row_group_size=max(len(block), 1), dictionary_pagesize_limit=DICTIONARY_BYTES)


class Texts:
    """The distinct values of a text column that is read in blocks, numbered as they first came."""

    def __init__(self) -> None:
        self.values: pa.LargeStringArray = pa.array([], pa.large_string())

    @classmethod
    def of(cls, values: pa.LargeStringArray) -> Texts:
        """With some values that have come, in their order."""
        texts = cls()
        texts.values = values
        return texts

    def __len__(self) -> int:
        return len(self.values)

    def numbers(self, column: pd.Series) -> NDArray[np.int32]:
        """Each row's number, int32 [rows], after new values have got theirs; -1 where the row has no value."""
        held = column if is_coded(column) else coded_column(column)
        return self._numbers(held.cat.codes.to_numpy(), pa.array(held.cat.categories, from_pandas=True))

    def numbers_of(self, column: pa.ChunkedArray) -> NDArray[np.int32]:
        """The same of a column that Arrow has read, coded, with one dictionary."""
        codes = [chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False) for chunk in column.chunks]
        return self._numbers(np.concatenate(codes), column.chunk(0).dictionary)

    def _numbers(self, codes: NDArray[np.integer], values: pa.Array) -> NDArray[np.int32]:
        used = pd.unique(codes)
        used = used[used >= 0]
        found = values.cast(pa.large_string()).take(pa.array(used))
        place = pc.index_in(found, value_set=self.values)
        new = found.filter(pc.is_null(place))
        numbers = pc.fill_null(place, -1).to_numpy(zero_copy_only=False).astype(np.int32)
        numbers[numbers < 0] = len(self.values) + np.arange(len(new), dtype=np.int32)
        self.values = pa.concat_arrays([self.values, new])
        of_codes = np.full(len(values) + 1, -1, dtype=np.int32)  # a place more, for a missing value, whose code is -1
        of_codes[used] = numbers
        return of_codes[codes]

    def index(self) -> pd.Index:
        """The values by their numbers."""
        return pd.Index(self.values.to_pandas(), dtype="str")
