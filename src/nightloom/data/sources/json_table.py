"""JSON tables: lines, lists, or objects one after the other, read by DuckDB. Numbers stay as they are spelt, so that no id is rounded."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from nightloom.core.errors import InputError
from nightloom.data.sources.packed import BOM, Content
from nightloom.data.sources.raw import RawTable, unique

LARGEST = 64 << 20
"""Bytes of the largest object."""
NOT_JSON = "not a JSON object"


def read_json(content: Content, path: Path, name: str, place: str) -> RawTable:
    """Read a JSON table. Each object is a row; a value that is an object gives columns such as `user.id`, a list stays one.

    Args:
        content: the file's bytes, unpacked.
        path: the file itself, read directly where it is not packed.
        name: which table this is, for messages.
        place: the file, for messages.

    Raises:
        InputError: it is no JSON, or one object around the list of rows.
    """
    if isinstance(content, bytes):
        with tempfile.TemporaryDirectory(prefix="nightloom-") as folder:
            unpacked = Path(folder) / "table.json"
            unpacked.write_bytes(content.removeprefix(BOM))
            return _read(unpacked, content, name, place)
    return _read(path, content, name, place)


def _read(path: Path, content: Content, name: str, place: str) -> RawTable:
    import duckdb  # not at import time: training reads snapshots on machines that have none

    by_line = _is_by_line(content)
    options = f"ignore_errors={str(by_line).lower()}, maximum_object_size={LARGEST}, hive_partitioning=false"
    form = "newline_delimited" if by_line else "auto"
    with duckdb.connect(config={"threads": 1, "autoinstall_known_extensions": False, "autoload_known_extensions": False}) as connection:
        try:
            # The columns of all objects, in the order in which they come; a line that is no object gives no row of them.
            connection.execute(
                f"CREATE TEMP TABLE rows AS SELECT row_number() OVER () AS row, json FROM read_json_objects(?, format='{form}', {options})",
                [str(path)],
            )
            keys = [
                key
                for (key,) in connection.execute(
                    "SELECT key FROM (SELECT row, unnest(json_keys(json)) AS key FROM rows WHERE json_type(json) = 'OBJECT') "
                    "GROUP BY key ORDER BY min(row), key"
                ).fetchall()
            ]
            kinds = dict(connection.execute("SELECT coalesce(json_type(json), 'NONE'), count(*) FROM rows GROUP BY 1").fetchall())
            if not keys:
                raise InputError(f"{name}: {place} holds no JSON objects with columns. Write one object a line.")
            picked = ", ".join(f"json ->> '$.{_quoted(key)}' AS c{at}" for at, key in enumerate(keys))
            nested = ", ".join(f"coalesce(bool_or(json_type(json, '$.{_quoted(key)}') IN ('OBJECT', 'ARRAY')), false)" for key in keys)
            deep = connection.execute(f"SELECT {nested} FROM rows").fetchone() or ()
            found = connection.execute(f"SELECT row, {picked} FROM rows WHERE json_type(json) = 'OBJECT' ORDER BY row").df()
            others = connection.execute("SELECT row FROM rows WHERE json IS NULL OR json_type(json) <> 'OBJECT' ORDER BY row").fetchall()
        except duckdb.Error as error:
            text = " ".join(str(error).split())[:300]
            raise InputError(f"{name}: {place} cannot be read as JSON ({text}). Write one object a line.") from error
    bad = [row for (row,) in others]
    frame = found.drop(columns="row").set_axis(keys, axis=1)
    _not_wrapped(frame, deep, kinds, name, place)
    flat: dict[str, pd.Series] = {}
    for key, is_deep in zip(keys, deep, strict=True):
        flat |= _flat(key, frame[key].map(_parsed, na_action="ignore")) if is_deep else {key: frame[key].astype("str")}
    frame = pd.DataFrame(flat).set_axis(pd.Index(found["row"].to_numpy()))
    unique([str(column) for column in frame], place, name)
    lines = _lines(content, bad) if by_line else dict.fromkeys(bad, "")
    unreadable = pd.DataFrame({"file": place, "row": pd.Series(bad, dtype="int64"), "raw": [lines[row] for row in bad], "reason": NOT_JSON})
    return RawTable(frame, place, [(place, len(frame))], unreadable)


def _is_by_line(content: Content) -> bool:
    """Whether each line is an object; else the text is a list, or objects over several lines."""
    end = content.find(b"\n", len(content[:512]) - len(content[:512].removeprefix(BOM).lstrip()))
    try:
        return isinstance(json.loads(content[: end if end >= 0 else len(content)].removeprefix(BOM)), dict)
    except ValueError:
        return False


def _quoted(key: str) -> str:
    """A key in a JSON path within a SQL string."""
    return ('"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"').replace("'", "''")


def _parsed(cell: str) -> Any:
    """An object or a list out of its JSON text, its numbers as they are spelt; any other cell as it is."""
    if not cell.startswith(("{", "[")):
        return cell
    try:
        return json.loads(cell, parse_int=str, parse_float=str)
    except ValueError:
        return cell


def _flat(key: str, column: pd.Series) -> dict[str, pd.Series]:
    """A column of objects as one column a key; a column of lists as it is."""
    objects = column.map(lambda cell: isinstance(cell, dict))
    if not objects.any():
        return {key: column.astype(object)}
    inner = dict.fromkeys(part for cell in column[objects] for part in cell)
    flat: dict[str, pd.Series] = {} if (objects | column.isna()).all() else {key: column.mask(objects).astype(object)}
    for part in inner:
        values = column.map(lambda cell, part=part: cell.get(part) if isinstance(cell, dict) else None).astype(object)
        flat |= _flat(f"{key}.{part}", values)
    return flat


def _not_wrapped(frame: pd.DataFrame, deep: tuple[bool, ...], kinds: dict[str, int], name: str, place: str) -> None:
    if len(frame) != 1 or sum(kinds.values()) != 1:
        return
    for key, is_deep in zip(frame, deep, strict=True):
        if is_deep and "".join(str(frame[key].iloc[0]).split()).startswith("[{"):
            raise InputError(
                f"{name}: {place} is one JSON object, whose rows lie in its list {key!r}. Write that list alone, or one object a line."
            )


def _lines(content: Content, rows: list[int]) -> dict[int, str]:
    """The text of some lines, counted without blank ones."""
    if not rows:
        return {}
    wanted, found, count = set(rows), dict[int, str](), 0
    for line in content[:].split(b"\n"):
        if line.strip():
            count += 1
            if count in wanted:
                found[count] = line.decode("utf-8", errors="replace").strip()
    return {row: found.get(row, "") for row in rows}
