"""A user's table as it stands in its source: text, JSON, Parquet, Arrow, Excel, a folder of one of these, or a SQL database by URL.

Nothing is interpreted here: cells of text files stay text exactly as written ("007" is not 7), other sources keep their
own types, and integers stay integers where values are missing. Every file of a folder and every line of a text is accounted for.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from nightloom.config import DataConfig
from nightloom.core.errors import InputError
from nightloom.data.sources.json_table import read_json
from nightloom.data.sources.packed import content_of, form_of
from nightloom.data.sources.parts import Part, parts_of
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


def table_in_pieces(place: str, data: DataConfig, name: str) -> tuple[str, Iterator[RawTable]]:
    """What `read_table` reads, a piece of at most `PIECE` rows at a time; only of Parquet the file is not read whole before.

    Args:
        place: see `read_table`; no SQL URL.
        data: likewise.
        name: likewise.

    Returns:
        Where it is, as the whole table says it, and the pieces.

    Raises:
        InputError: see `read_table`; also while the pieces are read.
    """
    parts = parts_at(place, name)
    label = str(parts[0]) if len(parts) == 1 else str(Path(place).expanduser())

    def pieces() -> Iterator[RawTable]:
        waiting: list[RawTable] = []
        for one in (piece for part in parts for piece in _pieces(part, data, name)):
            if waiting and sum(len(other.frame) for other in waiting) + len(one.frame) > PIECE:
                yield joined(waiting, label, name)
                waiting = []
            waiting.append(one)
        yield joined(waiting, label, name)

    return label, pieces()


def _pieces(part: Part, data: DataConfig, name: str) -> Iterator[RawTable]:
    """One file of a table, a piece at a time."""
    content = content_of(part.path, name, part.member)
    if form_of(content, part.path, name, part.member) == "parquet":
        yield from (_with_folders(one, part) for one in column_pieces(content, part.path, name, str(part), PIECE))
        return
    whole = read_part(part, data, name)
    for first in range(0, max(len(whole.frame), 1), PIECE):
        frame = whole.frame.iloc[first : first + PIECE]
        yield RawTable(frame, whole.place, [(whole.place, len(frame))], whole.unreadable.iloc[0 if first == 0 else len(whole.unreadable) :])


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
