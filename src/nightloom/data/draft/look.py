"""What a table looks like at its beginning: separator, header, encoding, and a sample of its rows."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from nightloom.config import DataConfig
from nightloom.core.errors import InputError
from nightloom.data.sources.files import parts_at, read_part
from nightloom.data.sources.packed import UTF16, content_of, form_of
from nightloom.data.sources.parts import Part
from nightloom.data.sources.sql import read_sql
from nightloom.data.sources.text_form import UNIT, WHITESPACE, likely_encoding, quotes_hold
from nightloom.data.sources.typed_table import NULLABLE

SAMPLE_BYTES, SAMPLE_ROWS = 4 << 20, 50_000
LINES = 200
"""Lines by which separator and header are guessed."""
AGREE = 0.9
"""Share of lines that must have the same number of cells."""
SEPARATORS = ("::", "\t", ";", "|", ",")
SQLITE = b"SQLite format 3\0"
TYPED = re.compile(r"^\w+:(token|token_seq|float|float_seq)$")
"""Headers of RecBole's atomic files."""
NAMES = re.compile(r"user|item|movie|film|product|rating|time|date|title|name|genre|price|event|stars|age|gender|id$", re.IGNORECASE)


@dataclass
class Look:
    """A table's beginning.

    Attributes:
        place: what `data.events` (or another table) has to be for it.
        name: of the file or database table, for messages.
        frame: the first rows, cells of text files as text.
        whole: whether these are all rows.
        separator: of a text file; None for other sources.
        header: whether the first line names the columns.
        encoding: of a text file.
        notes: what was found on the way, in sentences.
    """

    place: str
    name: str
    frame: pd.DataFrame
    whole: bool
    separator: str | None = None
    header: bool = True
    encoding: str = "utf-8"
    notes: list[str] = field(default_factory=list)


NAME = "the table"
"""What messages call it."""


def look_at(place: str) -> list[Look]:
    """The table at a place, or the tables of an SQLite file.

    Args:
        place: a text, Parquet or SQLite file, a folder of parts, or a SQL address.

    Raises:
        InputError: it is missing, or nothing that can be read.
    """
    try:
        return _looks(place)
    except InputError as error:  # readers name a key of the config, and there is none yet
        raise InputError(str(error).replace(f"`data.{NAME}`", "what you gave").replace("the config file", "where you are")) from error


def _looks(place: str) -> list[Look]:
    if "://" in place:
        return [_query(place, place.partition("?")[2].partition("=")[2])]
    path = Path(place).expanduser()
    if _starts(path, SQLITE):
        return _sqlite(path)
    parts = parts_at(place, NAME)
    look, used = _of_part(parts[0], place), 1
    with suppress(InputError):  # of a later part: `nightloom check` says what is wrong with it
        while used < len(parts) and len(look.frame) < SAMPLE_ROWS and _joined(look, _of_part(parts[used], place)):
            used += 1
    if path.is_dir():
        judged = f"; it was judged by the first {used:,}" if used < len(parts) else ""
        look.notes = [f"The folder is one table of {len(parts):,} files{judged}.", *look.notes]
    look.place, look.name = str(path.resolve()), path.name
    look.whole = look.whole and used == len(parts)
    return [look]


def _of_part(part: Part, place: str) -> Look:
    """The beginning of one file."""
    content = content_of(part.path, NAME, part.member)
    form = form_of(content, part.path, NAME, part.member)
    if form == "text":
        return _text(content[:SAMPLE_BYTES], str(part))
    if form == "parquet" and not part.columns:
        return _parquet(part.path)
    frame = read_part(part, DataConfig(events=place), NAME).frame
    return Look(place, part.path.name, frame.head(SAMPLE_ROWS).reset_index(drop=True), len(frame) <= SAMPLE_ROWS)


def _joined(look: Look, other: Look) -> bool:
    """Add another part's rows to a look, where both are read alike; whether they are."""
    form = (look.separator, look.header, look.encoding, list(look.frame.dtypes.items()))
    if form != (other.separator, other.header, other.encoding, list(other.frame.dtypes.items())):
        return False
    rows = pd.concat([look.frame, other.frame], ignore_index=True)
    look.frame, look.whole = rows.head(SAMPLE_ROWS), look.whole and other.whole and len(rows) <= SAMPLE_ROWS
    return True


def _starts(path: Path, mark: bytes) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(mark)) == mark


def _sqlite(path: Path) -> list[Look]:
    tables = sa.inspect(sa.create_engine(f"sqlite:///{path}", poolclass=sa.pool.NullPool)).get_table_names()
    if not tables:
        raise InputError(f"{path} is an SQLite file without tables. Name one with tables.")
    return [_query(f"sqlite:///{path.resolve()}?table={table}", table) for table in tables]


def _query(address: str, name: str) -> Look:
    sample = re.sub(r"([?&])table=([\w.]+)$", rf"\1query=SELECT * FROM \2 LIMIT {SAMPLE_ROWS}", address)
    frame, _ = read_sql(sample, NAME)
    return Look(address, name, frame, len(frame) < SAMPLE_ROWS)


def _parquet(path: Path) -> Look:
    try:
        file = pq.ParquetFile(path)
        batch = next(file.iter_batches(SAMPLE_ROWS), None)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is not a whole Parquet file ({error}). Write it again.") from error
    if batch is None:
        raise InputError(f"{path} has no rows.")
    table = pa.Table.from_batches([batch])
    frame = table.to_pandas(ignore_metadata=True, types_mapper=NULLABLE.get)
    return Look(str(path), path.name, frame, file.metadata.num_rows <= SAMPLE_ROWS)


def _text(content: bytes, path: str) -> Look:
    whole = len(content) < SAMPLE_BYTES
    content = content if whole else content[: content.rfind(b"\n") + 1]
    if b"\0" in content[:4096] and not content.startswith(UTF16):
        raise InputError(f"{path} is no text. Give a text (CSV, TSV, DAT), JSON, Parquet, Excel or SQLite file.")
    encoding = "utf-8"
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        encoding = likely_encoding(content, "utf-8")
        text = content.decode(encoding, errors="replace")
    lines = [line for line in text.splitlines()[:LINES] if line.strip()]
    if not lines:
        raise InputError(f"{path} is empty.")
    separator = _separator(lines)
    if separator is None:
        raise InputError(f"{path}: no separator gives its lines the same number of cells. Is it a table?")
    rows = _cells(lines, separator)
    header = _has_header(rows)
    quoted = len(separator) == 1 and quotes_hold(text.encode(), separator)
    frame = _parse(text, separator, header, quoted)
    return Look(path, path, frame, whole and len(frame) < SAMPLE_ROWS, separator, header, encoding)


def _cells(lines: list[str], separator: str) -> list[list[str]]:
    if separator == WHITESPACE:
        return [line.split() for line in lines]
    if len(separator) > 1:
        return [line.split(separator) for line in lines]
    try:
        return list(csv.reader(lines, delimiter=separator, strict=separator != ","))
    except csv.Error:  # quotes are letters like others here
        return [line.split(separator) for line in lines]


def _separator(lines: list[str]) -> str | None:
    """The separator that gives most lines the same number of cells, and the most of them."""
    widths: dict[str, int] = {}
    for separator in (*SEPARATORS, WHITESPACE):
        width, count = Counter(map(len, _cells(lines, separator))).most_common(1)[0]
        if width > 1 and count >= AGREE * len(lines):
            widths[separator] = width
    others = [separator for separator in widths if separator != WHITESPACE]  # titles have blanks, too
    if "::" in widths or not others:
        return "::" if "::" in widths else next(iter(widths), None)
    return max(others, key=lambda separator: widths[separator])


def _has_header(rows: list[list[str]]) -> bool:
    """Whether the first line names columns: words over numbers, or names that tables have."""
    first, rest = rows[0], [row for row in rows[1:] if len(row) == len(rows[0])]
    if any(TYPED.match(cell) for cell in first):
        return True
    if any(_number(cell) for cell in first):
        return False
    numeric = [at for at in range(len(first)) if rest and sum(_number(row[at]) for row in rest) >= AGREE * len(rest)]
    return bool(numeric) or any(NAMES.search(cell) for cell in first)


def _number(cell: str) -> bool:
    return re.fullmatch(r"\s*[-+]?\d*\.?\d+([eE][-+]?\d+)?\s*", cell) is not None


def _parse(text: str, separator: str, header: bool, quoted: bool) -> pd.DataFrame:
    several = len(separator) > 1
    if separator == WHITESPACE:
        text = re.sub(r"[ \t]+", UNIT, re.sub(r"(?m)^[ \t]+|[ \t]+$", "", text))
    elif several:
        text = text.replace(separator, UNIT)
    frame = pd.read_csv(
        io.StringIO(text),
        sep=UNIT if several else separator,
        header=0 if header else None,
        dtype=str,
        nrows=SAMPLE_ROWS,
        on_bad_lines="skip",
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        keep_default_na=False,
        na_values=[""],
    )
    return frame if header else frame.set_axis([str(number) for number in range(1, frame.shape[1] + 1)], axis=1)
