"""A user's table as it stands in its source: text (CSV and its kin), Parquet, a folder of either, or a SQL database by URL.

Nothing is interpreted here: CSV cells stay text exactly as written ("007" is not 7), other sources keep their
own types, and integers stay integers where values are missing.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from nightloom.config import DataConfig
from nightloom.core.errors import InputError
from nightloom.data.sources.sql import read_sql
from nightloom.data.sources.text_form import UNIT, WHITESPACE, not_in_encoding, one_character, quotes_hold

CSV_ENDINGS = tuple(f"{ending}{packed}" for ending in (".csv", ".tsv", ".txt", ".dat") for packed in ("", ".gz", ".bz2", ".zst"))
PARQUET_ENDINGS = (".parquet", ".pq")
NO_TABLES = ("readme", "license", "licence", "copying", "notice", "changelog")
"""Names of files that lie beside the parts of a table and are none."""
OTHER_SEPARATORS = {"::": "::", ";": ";", "\t": "\\t", "|": "|", ",": ","}
BLOCK_BYTES = 16 << 20
"""How much of a CSV file is parsed at once; no row may be longer."""
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

UNREADABLE_COLUMNS = ("file", "row", "raw", "reason")


@dataclass(frozen=True)
class RawTable:
    """One table as read, before any meaning is given to it.

    Attributes:
        frame: the rows; its index is the row number in the source file (1-based, header not counted).
        place: where it came from, for messages; holds no password.
        parts: name of each part and its number of rows in `frame`, in order.
        unreadable: rows that have no place in `frame`: `file`, `row`, `raw`, `reason`.
    """

    frame: pd.DataFrame
    place: str
    parts: Sequence[tuple[str, int]]
    unreadable: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(UNREADABLE_COLUMNS)))

    @classmethod
    def of(cls, frame: pd.DataFrame, place: str) -> RawTable:
        """A table of one part whose rows are all readable."""
        return cls(frame.set_axis(pd.RangeIndex(1, len(frame) + 1)), place, [(place, len(frame))])

    def files(self, positions: np.ndarray) -> np.ndarray:
        """Name of the part that holds each of some rows, given by position in `frame`."""
        ends = np.cumsum([rows for _, rows in self.parts])
        return np.array([name for name, _ in self.parts], dtype=object)[np.searchsorted(ends, positions, side="right")]


def read_table(place: str, data: DataConfig, name: str) -> RawTable:
    """Read one table from where the config says it is.

    Args:
        place: a text or Parquet file, a folder of either (all parts, by name), or a SQL URL.
        data: `encoding`, `separator` and `header` count for text files.
        name: which table this is (events, items, users, links), for messages.

    Raises:
        InputError: it is missing, empty, damaged or unreachable; says what to do.
    """
    if "://" in place:
        frame, label = read_sql(place, name)
        _unique([str(column) for column in frame], label, name)
        table = RawTable.of(frame, label)
    else:
        path = Path(place).expanduser()
        if not path.exists():
            raise InputError(f"{name}: {path} does not exist. Correct `data.{name}` (relative paths are relative to the config file).")
        table = _joined([_read_file(part, data, name) for part in parts_of(path, name)], str(path), name)
    if table.frame.empty and table.unreadable.empty:
        raise InputError(f"{name}: {table.place} has no rows. Give a table with rows in `data.{name}`{_or_leave_out(name)}.")
    return table


def _or_leave_out(name: str) -> str:
    return "" if name == "events" else ", or leave that key out"


def parts_of(path: Path, name: str) -> list[Path]:
    """The files of a table: the file itself, or a folder's parts by name."""
    if not path.is_dir():
        return [path]
    found = sorted(one for one in path.iterdir() if not one.name.startswith((".", "_")) and one.name.split(".")[0].lower() not in NO_TABLES)
    parts = [one for one in found if one.is_file() and one.name.lower().endswith(CSV_ENDINGS + PARQUET_ENDINGS)]
    endings = ".csv, .tsv, .txt or .dat (perhaps with .gz, .bz2 or .zst), .parquet or .pq"
    if left := [one for one in found if one not in parts]:
        what = "a folder" if left[0].is_dir() else "a file of another ending"
        raise InputError(
            f"{name}: {len(left):,} of {len(found):,} entries in the folder {path} are not read, for example {left[0].name}, {what}. "
            f"Put all parts directly into it as {endings}, and move away what is no part."
        )
    if not parts:
        raise InputError(f"{name}: the folder {path} holds no table. Put files there that end in {endings}.")
    if len({file.name.lower().endswith(PARQUET_ENDINGS) for file in parts}) > 1:
        raise InputError(f"{name}: the folder {path} holds both CSV and Parquet files. Keep one kind, so that no row is counted twice.")
    return parts


def _read_file(path: Path, data: DataConfig, name: str) -> RawTable:
    return _read_parquet(path, name) if path.name.lower().endswith(PARQUET_ENDINGS) else _read_csv(path, data, name)


def _joined(tables: list[RawTable], place: str, name: str) -> RawTable:
    first = tables[0]
    if len(tables) == 1:
        return first
    for table in tables:
        if set(table.frame.columns) != set(first.frame.columns):
            odd = sorted(set(table.frame.columns) ^ set(first.frame.columns))
            raise InputError(
                f"{name}: {table.place} and {first.place} differ in columns {odd}. Give all parts of a folder the same columns."
            )
    return RawTable(
        pd.concat([table.frame for table in tables]),
        place,
        [part for table in tables for part in table.parts],
        pd.concat([table.unreadable for table in tables], ignore_index=True),
    )


def _read_parquet(path: Path, name: str) -> RawTable:
    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{name}: {path} ({path.stat().st_size:,} bytes) is not a whole Parquet file ({error}). Was it cut short? Write it again."
        ) from error
    table = table.select([index for index, column in enumerate(table.column_names) if not column.startswith("__index_level_")])
    _unique(table.column_names, path, name)
    return RawTable.of(table.to_pandas(ignore_metadata=True, types_mapper=NULLABLE.get), str(path))


def _read_csv(path: Path, data: DataConfig, name: str) -> RawTable:
    columns, header = _columns(path, data, name), data.of_table("header", name)
    separator, encoding = data.of_table("separator", name), data.of_table("encoding", name)
    several = len(separator) > 1
    quoted = not several and quotes_hold(path, separator, encoding)
    ragged: list[pyarrow.csv.InvalidRow] = []

    def set_aside(row: pyarrow.csv.InvalidRow) -> str:
        ragged.append(row)
        return "skip"

    try:
        with pa.input_stream(path) as stream:
            table = pyarrow.csv.read_csv(
                one_character(stream.read(), separator, encoding) if several else stream,
                # Threads would lose the numbers of ragged rows.
                pyarrow.csv.ReadOptions(
                    use_threads=False,
                    encoding="utf-8" if several else encoding,
                    block_size=BLOCK_BYTES,
                    column_names=None if header else columns,
                ),
                pyarrow.csv.ParseOptions(
                    delimiter=UNIT if several else separator,
                    quote_char='"' if quoted else False,
                    newlines_in_values=quoted,
                    invalid_row_handler=set_aside,
                ),
                pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string()), null_values=[""], strings_can_be_null=True),
            )
    except (pa.ArrowException, OSError) as error:
        if "UTF8" in str(error):
            raise not_in_encoding(path, encoding, name) from error
        raise InputError(f"{name}: {path} cannot be read as CSV with separator {separator!r}: {error}") from error
    except UnicodeError as error:
        raise not_in_encoding(path, encoding, name) from error
    frame = table.to_pandas()
    # Arrow counts a header as row 1; rows set aside leave gaps in the numbers of the others.
    gaps = np.array([row.number - bool(header) for row in ragged], dtype=np.int64)
    numbers = np.setdiff1d(np.arange(1, len(frame) + len(gaps) + 1), gaps)[: len(frame)]
    quote = f": quote cells that hold {separator!r}" if quoted else ""
    reasons = [f"{row.actual_columns} columns instead of {row.expected_columns}{quote}" for row in ragged]
    raw = [row.text.replace(UNIT, " " if separator == WHITESPACE else separator) for row in ragged]
    unreadable = pd.DataFrame({"file": str(path), "row": gaps, "raw": raw, "reason": reasons})
    return RawTable(frame.set_axis(pd.Index(numbers)), str(path), [(str(path), len(frame))], unreadable)


def _columns(path: Path, data: DataConfig, name: str) -> list[str]:
    """Names of the columns: those of the first line, or their numbers where it is no header."""
    separator, encoding = data.of_table("separator", name), data.of_table("encoding", name)
    if not separator:
        raise InputError('data.separator is empty; write what stands between two cells (a tab is "\\t" in double quotes).')
    codec = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
    try:
        with pa.input_stream(path) as stream, io.TextIOWrapper(stream, encoding=codec, newline="") as text:
            if len(separator) > 1:
                line = text.readline().rstrip("\r\n")
                columns = line.split() if separator == WHITESPACE else line.split(separator)
            else:
                columns = next(csv.reader(text, delimiter=separator), [])
    except LookupError as error:
        raise InputError(f"{name}: there is no encoding '{encoding}'. Set data.encoding to utf-8, latin-1, gb18030 or another.") from error
    except UnicodeError as error:
        raise not_in_encoding(path, encoding, name) from error
    except OSError as error:
        raise InputError(f"{name}: {path} cannot be read ({error}). Check the file and its permissions.") from error
    if not any(columns):
        raise InputError(f"{name}: {path} is empty. Give a CSV file whose first line names the columns.")
    if columns[0].lstrip().startswith(("{", "[{")):
        raise InputError(
            f'{name}: {path} holds JSON lines, which are not read. Write them as Parquet: python -c "import pandas; '
            f"pandas.read_json('{path}', lines=True).to_parquet('{path.with_suffix('.parquet')}')\""
        )
    if len(columns) == 1:
        for other, spelt in OTHER_SEPARATORS.items():
            if other != separator and other in columns[0]:
                raise InputError(
                    f"{name}: {path} has one column, {columns[0]!r}, when cut at {separator!r}. "
                    f'It looks cut at "{spelt}": set data.separator: "{spelt}".'
                )
    if not data.of_table("header", name):
        return [str(number) for number in range(1, len(columns) + 1)]
    _unique(columns, path, name)
    return columns


def _unique(columns: list[str], place: object, name: str) -> None:
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        raise InputError(f"{name}: {place} has more than one column named {', '.join(map(repr, twice))}. Rename all but one.")
