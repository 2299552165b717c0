"""How a text table is written: its encoding, its separator, its quotes."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import numpy as np
import pyarrow as pa

from nightloom.core.errors import InputError

WHITESPACE = "whitespace"
"""The separator of tables that are cut at blanks and tabs, however many."""
UNIT = "\x1f"
"""Stands for a separator of several characters while such a text is parsed, which knows no quotes then."""


def quotes_hold(path: Path, separator: str, encoding: str) -> bool:
    """Whether quotes in a text mean that a cell is quoted; without commas they are often letters, as in 5" or "dry" crust."""
    if separator == ",":
        return True
    try:
        with pa.input_stream(path) as stream, io.TextIOWrapper(stream, encoding=encoding, newline="") as text:
            for _ in csv.reader(text, delimiter=separator, strict=True):
                pass
    except csv.Error:
        return False
    except (UnicodeError, OSError):
        return True  # parsing says what is wrong
    return True


def one_character(content: bytes, separator: str, encoding: str) -> io.BytesIO:
    """A text in UTF-8, its separator of several characters replaced by one that no table holds."""
    text = content.decode("utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding)
    if separator != WHITESPACE:
        return io.BytesIO(text.replace(separator, UNIT).encode())
    return io.BytesIO(re.sub(r"[ \t]+", UNIT, re.sub(r"(?m)^[ \t]+|[ \t]+$", "", text)).encode())


def not_in_encoding(path: Path, encoding: str, name: str) -> InputError:
    """Say where the first byte is that the encoding does not know."""
    with pa.input_stream(path) as stream:
        content = stream.read()
    try:
        content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        where = f"byte {content[error.start]:#04x} at offset {error.start:,} (line {line:,})"
    except UnicodeError as error:
        where = str(error)
    else:
        where = "its text"
    return InputError(
        f"{name}: {path} is not {encoding}: {where} cannot be decoded. "
        f"Save it as UTF-8, or say what it is, for example data.encoding: {likely_encoding(content, encoding)}"
    )


def likely_encoding(content: bytes, tried: str) -> str:
    """A guess at the encoding: in Chinese text bytes beyond ASCII stand side by side, in Western text mostly alone."""
    high = np.frombuffer(content, dtype=np.uint8) >= 0x80
    beside = high[1:] & high[:-1]
    try:
        content.decode("gb18030")
        chinese = 2 * beside.sum() >= high.sum()
    except UnicodeDecodeError:
        chinese = False
    return next(one for one in (*(["gb18030"] if chinese else []), "latin-1", "utf-8") if one != tried.lower())
