"""A user's table as it stands in its source: text, JSON, Parquet, Arrow, Excel, a folder of one of these, or a SQL database by URL.

Nothing is interpreted here: cells of text files stay text exactly as written ("007" is not 7), other sources keep their
own types, and integers stay integers where values are missing. Every file of a folder and every line of a text is accounted for.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from nightloom.config import DataConfig
from nightloom.core.errors import InputError
from nightloom.data.sources.json_table import read_json
from nightloom.data.sources.packed import content_of, form_of
from nightloom.data.sources.parts import Part, parts_of
from nightloom.data.sources.places import BEGIN, Place
from nightloom.data.sources.raw import RawTable, joined, unique
from nightloom.data.sources.sql import read_sql
from nightloom.data.sources.text_table import read_text
from nightloom.data.sources.typed_table import column_pieces, read_columns, read_workbook

PIECE = 1 << 20
"""Rows that are read at once where a table is read in pieces."""


def read_table(place: str, data: DataConfig, name: str) -> RawTable:
    """Read one table from where the config says it is.

    Args:
        place: a file, a pattern such as logs/2024-*.csv, a folder (all of it, by path), or a SQL URL.
        data: `encoding`, `separator` and `header` count for text files.
        name: which table this is (events, items, users, links), for messages.

    Raises:
        InputError: it is missing, empty, damaged or unreachable; says what to do.
    """
    if "://" in place:
        frame, label = read_sql(place, name)
        unique([str(column) for column in frame], label, name)
        table = RawTable.of(frame, label)
    else:
        table = joined([read_part(part, data, name) for part in parts_at(place, name)], str(Path(place).expanduser()), name)
    return filled(table, name)


def filled(table: RawTable, name: str) -> RawTable:
    """A table that has rows.

    Raises:
        InputError: it has none.
    """
    if table.frame.empty and table.unreadable.empty:
        leave_out = "" if name == "events" else ", or leave that key out"
        raise InputError(f"{name}: {table.place} has no rows. Give a table with rows in `data.{name}`{leave_out}.")
    return table


class Piece(NamedTuple):
    """A part of a table's rows.

    Attributes:
        table: the rows.
        end: where the next piece begins; None where reading can not begin there.
    """

    table: RawTable
    end: Place | None


@dataclass(frozen=True)
class InPieces:
    """What `read_table` reads, a piece of at most `PIECE` rows at a time; only of Parquet the file is not read whole before.

    Attributes:
        parts: the files.
        label: where it is, as the whole table says it.
        data: see `read_table`.
        name: likewise.
    """

    parts: Sequence[Part]
    label: str
    data: DataConfig
    name: str

    @classmethod
    def at(cls, place: str, data: DataConfig, name: str) -> InPieces:
        """The table at a place, which is no SQL URL.

        Raises:
            InputError: see `parts_at`.
        """
        parts = parts_at(place, name)
        return cls(parts, str(parts[0]) if len(parts) == 1 else str(Path(place).expanduser()), data, name)

    def pieces(self, begin: Place = BEGIN) -> Iterator[Piece]:
        """The pieces from a place on; from the beginning there is one at least.

        Raises:
            InputError: see `read_table`.
        """
        waiting: list[RawTable] = []
        end: Place | None = begin
        for number, part in enumerate(self.parts[begin.files :], begin.files):
            of_file = 0
            for one, through in _pieces(part, self.data, self.name, begin.rows if number == begin.files else 0):
                of_file += 1
                if waiting and sum(len(other.frame) for other in waiting) + len(one.frame) > PIECE:
                    yield Piece(joined(waiting, self.label, self.name), end)
                    waiting = []
                waiting.append(one)
                end = None if through is None else Place(number, through)
            end = Place(number + 1)
            if of_file > 1:  # the end of a large file is a piece of its own, so that reading can begin after it
                yield Piece(joined(waiting, self.label, self.name), end)
                waiting = []
        if waiting or end == BEGIN:
            yield Piece(joined(waiting, self.label, self.name), end)


def _pieces(part: Part, data: DataConfig, name: str, skip: int) -> Iterator[tuple[RawTable, int | None]]:
    """One file of a table, a piece at a time, less some rows at its beginning; of Parquet also how many rows came up to a piece's end."""
    content = content_of(part.path, name, part.member)
    if form_of(content, part.path, name, part.member) == "parquet":
        for one in column_pieces(content, part.path, name, str(part), PIECE, skip):
            skip += len(one.frame)
            yield _with_folders(one, part), skip if not part.member else None
        return
    whole = read_part(part, data, name)
    for first in range(0, max(len(whole.frame), 1), PIECE):
        frame = whole.frame.iloc[first : first + PIECE]
        lost = whole.unreadable.iloc[0 if first == 0 else len(whole.unreadable) :]
        yield RawTable(frame, whole.place, [(whole.place, len(frame))], lost), None


def parts_at(place: str, name: str) -> list[Part]:
    """The files at a place: a file, a folder, or those that match a pattern.

    Raises:
        InputError: nothing is there, or what is there is no table.
    """
    path = Path(place).expanduser()
    try:
        there = path.exists()
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        raise InputError(f"{name}: {place[:200]} can not be looked at ({error.strerror}). Correct `data.{name}`.") from error
    if not there and (found := sorted(glob.glob(str(path)))):
        return [part for one in found for part in parts_of(Path(one), name)]
    if there and not path.is_file() and not path.is_dir():
        raise InputError(f"{name}: {path} is neither a file nor a folder, but a pipe or a device. Write its content to a file.")
    if not there:
        raise InputError(f"{name}: {path} does not exist. Correct `data.{name}` (relative paths are relative to the config file).")
    return parts_of(path, name)


def read_part(part: Part, data: DataConfig, name: str) -> RawTable:
    """Read one file of a table, by what it holds and not by what it is called.

    Raises:
        InputError: it is no table, damaged, or in another form than the config says.
    """
    content = content_of(part.path, name, part.member)
    form, place = form_of(content, part.path, name, part.member), str(part)
    if form == "zip":
        raise InputError(f"{name}: {place} is a zip archive within another file. Unpack it.")
    if form == "json":
        table = read_json(content, part.path, name, place)
    elif form == "xlsx":
        table = read_workbook(content, name, place, data.of_table("header", name))
    elif form == "text":
        if named := {".parquet": "Parquet", ".pq": "Parquet", ".feather": "Arrow", ".xlsx": "Excel"}.get(Path(place).suffix.lower()):
            raise InputError(f"{name}: {place} ({len(content):,} bytes) is not a whole {named} file. Was it cut short? Write it again.")
        table = read_text(content, data, name, place)
    else:
        table = read_columns(content, form, name, place)
    return _with_folders(table, part)


def _with_folders(table: RawTable, part: Part) -> RawTable:
    """A part with the columns that the names of its folders give."""
    given = {key: pd.Series(value, index=table.frame.index, dtype="str") for key, value in part.columns if key not in table.frame}
    return RawTable(table.frame.assign(**given), table.place, table.parts, table.unreadable) if given else table
