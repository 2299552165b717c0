"""Places in a table of several files, and what was read up to one: from there reading goes on where all before is as it was."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nightloom.core.digests import digest
from nightloom.data.sources.parts import Part


@dataclass(frozen=True, order=True)
class Place:
    """A place among the rows of a table.

    Attributes:
        files: that lie before it.
        rows: of the next file that lie before it.
    """

    files: int
    rows: int = 0


BEGIN = Place(0)
"""Before the first row."""


def grows_from(parts: Sequence[Part]) -> Place:
    """From where on a table may change when it grows: its last file, of which a Parquet file's last row group alone."""
    last = parts[-1]
    groups = _groups_of(last.path) if not last.member else []
    return Place(len(parts) - 1, sum(rows for rows, _ in groups[:-1]))


def said_of(parts: Sequence[Part], place: Place) -> list[list[Any]]:
    """All that lies before a place, by content: where it is equal to what it was, the same rows lie before the place.

    Raises:
        OSError: a file can not be read.
    """
    said = [[str(part), [list(column) for column in part.columns], digest(part.path)] for part in parts[: place.files]]
    if place.rows and place.files < len(parts):
        part, found, rows = parts[place.files], sha256(), 0
        for count, group in _groups_of(part.path):
            if rows >= place.rows:
                break
            rows += count
            found.update(group().encode())
        said.append([str(part), [list(column) for column in part.columns], f"{found.hexdigest()} {rows >= place.rows}"])
    return said


def stamps_of(parts: Sequence[Part]) -> list[tuple[int, int, int]]:
    """Inode, size and time of change of each file; who writes a file while it is read changes them.

    Raises:
        OSError: a file is gone.
    """
    return [(at.st_ino, at.st_size, at.st_mtime_ns) for at in (part.path.stat() for part in parts)]


def _groups_of(path: Path) -> list[tuple[int, Any]]:
    """Rows of each row group of a Parquet file, and what gives its digest; none where the file is another."""
    try:
        about = pq.read_metadata(path)
        schema = str(pq.read_schema(path).remove_metadata())
    except (pa.ArrowException, OSError):
        return []

    def digest_of(number: int) -> str:
        group = about.row_group(number)
        columns = [group.column(at) for at in range(group.num_columns)]
        begins = [
            min(offset for offset in (one.dictionary_page_offset, one.data_page_offset) if offset is not None and offset > 0)
            for one in columns
        ]
        told = [
            [one.path_in_schema, one.physical_type, one.compression, one.num_values, list(one.encodings), one.data_page_offset - begin]
            for one, begin in zip(columns, begins, strict=True)
        ]
        found = sha256(json.dumps([schema, group.num_rows, told]).encode())
        with path.open("rb") as file:
            for one, begin in zip(columns, begins, strict=True):
                file.seek(begin)
                found.update(file.read(one.total_compressed_size))
        return found.hexdigest()

    return [(about.row_group(at).num_rows, lambda at=at: digest_of(at)) for at in range(about.num_row_groups)]
