"""Taking one person's id out of files of every kind that nights write. Doing so twice changes nothing more.

An id is looked for where ids of people stand: columns and keys that say so, and "user <id>" in text. One that can be nothing else (not
a number, four characters at least) is taken out wherever it stands.
"""

from __future__ import annotations

import csv
import json
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nightloom.core.digests import SEAL, write_sealed
from nightloom.core.files import whole_file, write_text
from nightloom.runs.forgotten import values_of

KEYS = ("user_id", "other_id", "user", "userId", "users", "friend_id")
"""Columns and JSON keys that hold ids of people."""
RAW = ("raw",)
"""Columns that hold the text of a whole row."""
GONE = "[forgotten]"
TEXTS = (".html", ".md", ".txt", ".log", ".jsonl", ".out", ".err", ".yaml")
REMOVED = object()


def telling(user: str) -> bool:
    """Whether an id can be nothing else than an id."""
    return len(user) >= 4 and not re.fullmatch(r"[\d.\-+:/ ]+", user)


def redact(path: Path, user: str) -> bool:
    """Take an id out of a file; whether it was there. A kill leaves the file as it was or as it shall be."""
    todo = KINDS.get(path.suffix)
    return todo(path, user) if todo and path.is_file() and not path.is_symlink() else False


def redacted_text(text: str, user: str) -> str:
    """Text without an id."""
    return _pattern(user).sub(lambda found: f"{found.groupdict().get('before') or ''}{GONE}", text)


def _pattern(user: str) -> re.Pattern[str]:
    forms = {user, json.dumps(user)[1:-1], json.dumps(user, ensure_ascii=False)[1:-1], _escaped(user)}
    one = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
    if telling(user):
        return re.compile(rf"(?<![\w-])(?:{one})(?![\w-])")
    return re.compile(rf"""(?P<before>\b[Uu]sers?(?:_?[Ii]d)?["']?\s*[:=]?\s*["']?(?:</?\w+>)?)(?:{one})(?![\w-])""")


def _escaped(user: str) -> str:
    import html

    return html.escape(user)


def _text(path: Path, user: str) -> bool:
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    made = redacted_text(text, user)
    if made == text:
        return False
    with whole_file(path) as temporary:
        temporary.write_text(made, encoding="utf-8", errors="surrogateescape")
    return True


def _json(path: Path, user: str) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return _text(path, user)
    made = _without(content, user)
    made = type(content)() if made is REMOVED else made
    if made == content:
        return False
    if isinstance(made, dict) and SEAL in made:
        del made[SEAL]
        write_sealed(path, made)
    else:
        write_text(path, json.dumps(made, indent=2, ensure_ascii=False) + "\n")
    return True


def _without(value: Any, user: str, key: str = "") -> Any:
    """A JSON value without an id; `REMOVED` where the whole value is of the person."""
    if isinstance(value, dict):
        if any(name in KEYS and one == user for name, one in value.items()):
            return REMOVED
        people = value.get("column") in KEYS or (value.get("event") is not None and value.get("user_id") is not None)
        made = {name: _without(one, user, "user_id" if people and name == "examples" else name) for name, one in value.items()}
        return {redacted_key(name, user): one for name, one in made.items() if one is not REMOVED}
    if isinstance(value, list):
        made_list = [_without(one, user, key) for one in value]
        return [one for one in made_list if one is not REMOVED]
    if isinstance(value, str):
        if value == user and (telling(user) or key in KEYS):
            return REMOVED
        return redacted_text(value, user)
    return value


def redacted_key(name: str, user: str) -> str:
    """A key without an id that can be nothing else."""
    return redacted_text(name, user) if telling(user) else name


def _parquet(path: Path, user: str) -> bool:
    table = pq.read_table(path)
    kept = without_rows(table, user)
    if len(kept) == len(table):
        return False
    with whole_file(path) as temporary:
        pq.write_table(kept, temporary)
    return True


def without_rows(table: pa.Table, user: str) -> pa.Table:
    """The rows that are not of a person."""
    gone = pa.array([False] * len(table), pa.bool_())
    for name in table.column_names:
        column = table.column(name)
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_dictionary(column.type)):
            continue
        text = column.cast(pa.large_string())
        if name in RAW:
            found = pa.array([raw is not None and user in values_of(raw) for raw in text.to_pylist()], pa.bool_())
        elif name in KEYS:
            found = pc.fill_null(pc.equal(text, user), False)
        elif telling(user):
            found = pc.fill_null(pc.match_substring_regex(text, rf"(^|[^\w-])({re.escape(user)})($|[^\w-])"), False)
        else:
            continue
        gone = pc.or_(gone, found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found)
    return table.filter(pc.invert(gone))


def _csv(path: Path, user: str) -> bool:
    """Take a person's rows out of a table in CSV."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.reader(file))
    if not rows:
        return False
    kept = [row for row in rows[1:] if not _of_person(dict(zip(rows[0], row, strict=False)), user)]
    if len(kept) == len(rows) - 1:
        return False
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([rows[0], *kept])
    return True


def _of_person(row: dict[str, str], user: str) -> bool:
    if any(row.get(name) == user for name in KEYS) or any(user in values_of(row[name]) for name in RAW if name in row):
        return True
    return telling(user) and any(_pattern(user).search(cell) for cell in row.values())


def _zip(path: Path, user: str) -> bool:
    changed, made = False, list[tuple[zipfile.ZipInfo, bytes]]()
    with zipfile.ZipFile(path) as packed:
        for info in packed.infolist():
            content = packed.read(info)
            if Path(info.filename).suffix in (*TEXTS, ".json"):
                text = content.decode("utf-8", "surrogateescape")
                less = redacted_text(text, user)
                changed |= less != text
                content = less.encode("utf-8", "surrogateescape")
            made.append((info, content))
    if changed:
        with whole_file(path) as temporary, zipfile.ZipFile(temporary, "w") as packed:
            for info, content in made:
                packed.writestr(info, content, info.compress_type)
    return changed


KINDS: Mapping[str, Callable[[Path, str], bool]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".json": _json,
    ".zip": _zip,
    **dict.fromkeys(TEXTS, _text),
}
"""Ending of a file's name -> what takes an id out of such a file; files of other kinds hold none."""
