"""How a text table is written: its encoding, its first lines, its separator, its quotes."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from nightloom.core.errors import InputError
from nightloom.core.yaml_words import scalar
from nightloom.data.sources.packed import BOM, UTF16, Content
from nightloom.data.sources.raw import are_names

WHITESPACE = "whitespace"
"""The separator of tables that are cut at blanks and tabs, however many."""
UNIT = "\x1f"
"""Stands for a separator of several characters while such a text is parsed, which knows no quotes then."""
OTHER_SEPARATORS = ("::", ";", "\t", "|", ",")
HEAD_BYTES = 1 << 20
"""Header and first row are looked for in so much of a text."""
CHUNK = 16 << 20


@dataclass(frozen=True)
class TextForm:
    """How a text table has to be parsed.

    Attributes:
        columns: names of the columns; the last is empty where each row ends with a separator.
        start: byte at which the rows begin, in UTF-8.
        separator: of the cells.
    """

    columns: list[str]
    start: int
    separator: str


def as_utf8(content: Content, encoding: str, place: str, name: str) -> Content:
    """A text in UTF-8; a byte order mark stays.

    Raises:
        InputError: there is no such encoding, or the text is in another.
    """
    try:
        codec = codecs.lookup(encoding).name
        content[:1].decode(codec, errors="replace")  # some codecs are none of text, such as hex
    except LookupError as error:
        raise InputError(f"{name}: there is no encoding '{encoding}'. Set data.encoding to utf-8, latin-1, gb18030 or another.") from error
    if codec in ("utf-8", "utf-8-sig"):
        if content[:2] in UTF16:
            raise not_in_encoding(content, encoding, place, name)
        return content
    try:
        return content[:].decode(codec).removeprefix("\ufeff").encode()
    except UnicodeError as error:
        raise not_in_encoding(content, encoding, place, name) from error


def form_of_text(content: Content, separator: str, header: bool, encoding: str, place: str, name: str) -> TextForm:
    """Read the first lines: blank ones and `sep=;` are passed over, then the header, or the first row where there is none.

    Args:
        content: the text in UTF-8.
        separator: what the config says.
        header: whether the first line names the columns.
        encoding: what the config says, for messages.
        place: file, for messages.
        name: which table this is, for messages.

    Raises:
        InputError: it is empty, or looks cut at another separator.
    """
    if not separator:
        raise InputError('data.separator is empty; write what stands between two cells (a tab is "\\t" in double quotes).')
    start = len(BOM) if content[: len(BOM)] == BOM else 0
    head = content[start : start + HEAD_BYTES]
    blank = len(head) - len(head.lstrip(b"\r\n"))
    if said := re.match(rb"sep=(.)\r?\n", head[blank:], re.IGNORECASE):
        blank += said.end()
        own = said.group(1).decode("latin-1")
        if separator not in (own, ","):
            raise InputError(f"{name}: the first line of {place} says that it is cut at {own!r}. Set data.separator: {scalar(own)}")
        separator = own
    start += blank
    text = head[blank:].decode("utf-8", errors="replace")
    lines = io.StringIO(text, newline="")
    rows = _rows(lines, separator)
    columns = next(rows, [])
    if any("\ufffd" in column for column in columns) and "\ufffd" not in content[:].decode("utf-8", errors="ignore")[: len(text)]:
        raise not_in_encoding(content, encoding, place, name)
    if not any(columns):
        raise InputError(f"{name}: {place} is empty. Give a CSV file whose first line names the columns.")
    if len(columns) == 1:
        for other in OTHER_SEPARATORS:
            if other != separator and other in columns[0]:
                shown = f", {columns[0]!r}," if are_names(columns[0].split(other)) else ""
                raise InputError(
                    f"{name}: {place} has one column{shown} when cut at {separator!r}. "
                    f"It looks cut at {scalar(other)}: set data.separator: {scalar(other)}."
                )
    if not header:
        return TextForm([str(number) for number in range(1, len(columns) + 1)], start, separator)
    used = len(text[: lines.tell()].encode()) if "\ufffd" not in text else _bytes_of_lines(head[blank:], lines, text)
    first = next((row for row in rows if any(row)), [])
    if len(first) == len(columns) + 1 and not first[-1]:
        columns = [*columns, ""]  # each row ends with a separator, the header does not
    return TextForm(columns, start + used, separator)


def _bytes_of_lines(head: bytes, lines: io.StringIO, text: str) -> int:
    """Bytes of as many lines as were read, where the text has bytes that are no UTF-8."""
    return sum(len(line) for line in islice(io.BytesIO(head), text[: lines.tell()].count("\n")))


def _rows(lines: io.StringIO, separator: str) -> Iterator[list[str]]:
    """Rows one after the other; the file's position is behind the last one given."""
    if len(separator) > 1:
        while line := lines.readline():
            yield line.split() if separator == WHITESPACE else line.rstrip("\r\n").split(separator)
        return
    yield from csv.reader(iter(lines.readline, ""), delimiter=separator)


def quotes_hold(content: Content, separator: str) -> bool:
    """Whether quotes in a text mean that a cell is quoted; without commas they are often letters, as in 5" or "dry" crust."""
    if content.find(b'"') < 0:
        return False
    if separator == ",":
        return True
    try:
        for _ in csv.reader(io.TextIOWrapper(io.BytesIO(content[:]), encoding="utf-8", newline=""), delimiter=separator, strict=True):
            pass
    except csv.Error:
        return False
    except UnicodeError:
        return True  # parsing says what is wrong
    return True


def one_character(content: bytes, separator: str) -> bytes:
    """A text in UTF-8, its separator of several characters replaced by one that no table holds."""
    if separator != WHITESPACE:
        return content.replace(separator.encode(), UNIT.encode())
    return re.sub(rb"[ \t]+", UNIT.encode(), re.sub(rb"(?m)^[ \t]+|[ \t]+(?=\r?$)", b"", content))


def lines_of(content: Content | memoryview) -> int:
    """Lines that are not blank."""
    count, array = 0, np.frombuffer(content, dtype=np.uint8) if len(content) else np.zeros(0, np.uint8)
    carried = np.array([10, 10], dtype=np.uint8)  # what stands before a chunk
    for at in range(0, len(array), CHUNK):
        part = np.concatenate([carried, array[at : at + CHUNK]])
        ends = np.flatnonzero(part[2:] == 10)
        before, two_before = part[1:-1][ends], part[:-2][ends]
        count += len(ends) - int(((before == 10) | ((before == 13) & (two_before == 10))).sum())
        carried = part[-2:]
    return count + int(len(array) > 0 and carried[1] != 10)


def not_in_encoding(content: Content, encoding: str, place: str, name: str) -> InputError:
    """Say where the first byte is that the encoding does not know."""
    whole = content[:]
    try:
        whole.decode(encoding)
    except UnicodeDecodeError as error:
        line = whole.count(b"\n", 0, error.start) + 1
        where = f"byte {whole[error.start]:#04x} at offset {error.start:,} (line {line:,})"
    except UnicodeError as error:
        where = str(error)
    else:
        where = "its text"
    return InputError(
        f"{name}: {place} is not {encoding}: {where} cannot be decoded. "
        f"Save it as UTF-8, or say what it is, for example data.encoding: {likely_encoding(whole, encoding)}"
    )


def likely_encoding(content: bytes, tried: str) -> str:
    """A guess at the encoding: in Chinese text bytes beyond ASCII stand side by side, in Western text mostly alone."""
    if content[:2] in UTF16:
        return "utf-16"
    high = np.frombuffer(content, dtype=np.uint8) >= 0x80
    beside = high[1:] & high[:-1]
    try:
        content.decode("gb18030")
        chinese = 2 * beside.sum() >= high.sum()
    except UnicodeDecodeError:
        chinese = False
    return next(one for one in (*(["gb18030"] if chinese else []), "latin-1", "utf-8") if one != tried.lower())
