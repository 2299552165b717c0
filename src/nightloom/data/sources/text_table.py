"""Text tables: CSV and its kin. Cells stay text exactly as written ("007" is not 7), and every line is accounted for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from nightloom.config import DataConfig
from nightloom.core.errors import InputError
from nightloom.data.sources.packed import Content
from nightloom.data.sources.raw import RawTable, unique
from nightloom.data.sources.text_form import (
    UNIT,
    WHITESPACE,
    TextForm,
    as_utf8,
    form_of_text,
    lines_of,
    not_in_encoding,
    one_character,
    quotes_hold,
)

BLOCK_BYTES = 16 << 20
"""How much of a CSV file is parsed at once; no row may be longer."""
SWALLOWED = "a quote that is not closed in its line swallows the lines after it"
HEADER_AGAIN = "the header once more"


@dataclass
class _Parsed:
    """Rows of a text, and those of another width."""

    table: pa.Table
    ragged: list[pyarrow.csv.InvalidRow] = field(default_factory=list)


def read_text(content: Content, data: DataConfig, name: str, place: str) -> RawTable:
    """Read a text table.

    Args:
        content: its bytes, unpacked.
        data: `encoding`, `separator` and `header` count.
        name: which table this is, for messages.
        place: the file, for messages.

    Raises:
        InputError: it is empty or in another encoding or form than the config says, or lines of it would be lost.
    """
    encoding, header = data.of_table("encoding", name), data.of_table("header", name)
    text = as_utf8(content, encoding, place, name)
    form = form_of_text(text, data.of_table("separator", name), header, encoding, place, name)
    unique([column for column in form.columns if column], place, name)
    if (unnamed := form.columns[: None if form.columns[-1] else -1].count("")) > 1:
        raise InputError(f"{name}: the first line of {place} leaves {unnamed} columns without a name. Name each of them.")
    several = len(form.separator) > 1
    body: Content | memoryview = one_character(text[form.start :], form.separator) if several else memoryview(text)[form.start :]
    quoted = not several and quotes_hold(text, form.separator)

    def parse(quoted: bool) -> _Parsed:
        try:
            return _parse(body, form, quoted, UNIT if several else form.separator)
        except (pa.ArrowException, UnicodeDecodeError) as error:
            if isinstance(error, UnicodeDecodeError) or "UTF8" in str(error):
                raise not_in_encoding(text, encoding, place, name) from error
            hint = ". A quote that is never closed looks so, too" if quoted else ""
            raise InputError(f"{name}: {place} cannot be read as CSV with separator {form.separator!r}: {error}{hint}") from error

    parsed = parse(quoted)
    swallowing = _swallowing(parsed.table, form.separator) if quoted else np.zeros(0, dtype=np.int64)
    if quoted and (len(swallowing) or parsed.ragged):
        letters = parse(False)
        if len(swallowing) and (form.separator != "," or not letters.ragged):  # then quotes are letters like others
            parsed, quoted, swallowing = letters, False, np.zeros(0, dtype=np.int64)
    lines, found = lines_of(body), _lines_read(parsed, quoted)
    if lines > found:
        raise InputError(
            f"{name}: {place} has {lines:,} lines with rows, of which {found:,} were read. Quotes that are not closed in their line may be "
            'the cause: double each quote that is a letter (""), and put quotes around cells that hold one.'
        )
    return _account(parsed, form, swallowing, quoted, place)


def _parse(body: Content | memoryview, form: TextForm, quoted: bool, separator: str) -> _Parsed:
    ragged: list[pyarrow.csv.InvalidRow] = []

    def set_aside(row: pyarrow.csv.InvalidRow) -> str:
        ragged.append(row)
        return "skip"

    if not len(body):
        return _Parsed(pa.table({column: pa.array([], pa.string()) for column in form.columns}))
    with _undecodable_rows_raised():
        table = pyarrow.csv.read_csv(
            pa.BufferReader(pa.py_buffer(body)),
            # Threads would lose the numbers of ragged rows.
            pyarrow.csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES, column_names=form.columns),
            pyarrow.csv.ParseOptions(
                delimiter=separator, quote_char='"' if quoted else False, newlines_in_values=quoted, invalid_row_handler=set_aside
            ),
            pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(form.columns, pa.string()), null_values=[""], strings_can_be_null=True),
        )
    return _Parsed(table, ragged)


@contextmanager
def _undecodable_rows_raised() -> Iterator[None]:
    """Raise what Arrow only writes to stderr: that a ragged row, which it hands over as text, is none.

    Raises:
        UnicodeDecodeError: there is such a row.
    """
    found, before = [], sys.unraisablehook

    def keep(unraisable: sys.UnraisableHookArgs) -> None:
        if isinstance(unraisable.exc_value, UnicodeDecodeError):
            found.append(unraisable.exc_value)
        else:
            before(unraisable)

    sys.unraisablehook = keep
    try:
        yield
    except pa.ArrowException as error:
        raise (found[0] if found else error) from error
    finally:
        sys.unraisablehook = before
    if found:
        raise found[0]


def _multiline(column: pa.ChunkedArray) -> np.ndarray:
    """Rows whose cell holds several lines."""
    return np.flatnonzero(pc.fill_null(pc.match_substring(column, "\n"), False).to_numpy(zero_copy_only=False))


def _lines_read(parsed: _Parsed, quoted: bool) -> int:
    """Lines of the text that are in a row, or put aside."""
    inner = sum(pc.sum(pc.count_substring(column, "\n")).as_py() or 0 for column in parsed.table.columns) if quoted else 0
    return parsed.table.num_rows + inner + sum(1 + row.text.strip("\r\n").count("\n") for row in parsed.ragged)


def _swallowing(table: pa.Table, separator: str) -> np.ndarray:
    """Rows with a cell that holds whole lines of the table: all lines of it but the first are cut as rows are.

    A row's closing quote stands in the column of its opening one, so the last line of such a cell has as many separators as columns
    stand before it, and the lines between have all.
    """
    found: list[int] = []
    for at, column in enumerate(table.columns):
        rows = _multiline(column)
        for row, cell in zip(rows.tolist(), column.take(pa.array(rows)).to_pylist(), strict=True):
            _, *between, last = cell.split("\n")
            between = [line for line in between if line.strip()]
            whole = all(line.count(separator) == table.num_columns - 1 for line in between)
            if whole and last.count(separator) == at and (at or between):
                found.append(row)
    return np.unique(np.array(found, dtype=np.int64))


def _account(parsed: _Parsed, form: TextForm, swallowing: np.ndarray, quoted: bool, place: str) -> RawTable:
    """The rows, their numbers, and what is put aside."""
    names = form.columns if form.columns[-1] else form.columns[:-1]
    frame = parsed.table.rename_columns([*names, *[UNIT] * (len(form.columns) - len(names))]).to_pandas()
    # Rows set aside leave gaps in the numbers of the others.
    gaps = np.array([row.number for row in parsed.ragged], dtype=np.int64)
    numbers = np.setdiff1d(np.arange(1, len(frame) + len(gaps) + 1), gaps)[: len(frame)]
    frame = frame.set_axis(pd.Index(numbers))
    spoken = " " if form.separator == WHITESPACE else form.separator
    aside: list[tuple[int, str, str]] = []
    for row in parsed.ragged:
        # A quote may have swallowed lines here, too: each is a row that is lost.
        quote = f": quote cells that hold {form.separator!r}" if quoted or form.separator == "," else ""
        text = row.text.replace(UNIT, spoken).strip("\r\n")
        lines = text.split("\n")
        why = SWALLOWED if len(lines) > 1 else f"{row.actual_columns} columns instead of {row.expected_columns}{quote}"
        aside += [(row.number, line, why) for line in lines]
    bad = np.zeros(len(frame), dtype=bool)

    def put_aside(positions: np.ndarray, reason: str) -> None:
        for position in positions[~bad[positions]].tolist():
            line = spoken.join("" if pd.isna(cell) else str(cell) for cell in frame.iloc[position])
            aside.extend((int(numbers[position]), one, reason) for one in line.split("\n"))
        bad[positions] = True

    put_aside(swallowing, SWALLOWED)
    if len(names) < len(form.columns):
        put_aside(np.flatnonzero(frame[UNIT].notna()), f"{len(form.columns)} columns instead of {len(names)}")
        frame = frame[names]
    if not all(name.isdigit() for name in names) and len(frame):
        again = np.flatnonzero((frame.iloc[:, 0] == names[0]).to_numpy(dtype=bool, na_value=False))
        put_aside(again[(frame.iloc[again].fillna("") == names).all(axis=1).to_numpy()], HEADER_AGAIN)
    kept = frame[~bad] if bad.any() else frame
    unreadable = pd.DataFrame(
        {
            "file": place,
            "row": np.array([row for row, _, _ in aside], dtype=np.int64),
            "raw": [line for _, line, _ in aside],
            "reason": [reason for _, _, reason in aside],
        }
    )
    return RawTable(kept, place, [(place, len(kept))], unreadable)
