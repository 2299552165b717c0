"""The events of a snapshot, one user at a time: a file with a row a user, made once from `events.parquet` in a process of its own.

A worker thus holds none of the events, whatever their number, and neither DuckDB nor its buffers.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from nightloom.core.errors import InputError
from nightloom.core.files import partial_folder
from nightloom.serving.store.database import connect, lock_of, turn
from nightloom.serving.store.rows import Event

PART = 2_000_000
"""Events that are held in memory at a time while the file is made."""
KEPT = 3
"""Files that stay: the champion's, the one before, and one that is being made."""

PAGE = 10_000
"""Users that are named at a time."""
CACHED = 100_000
"""Item ids that are kept in memory, some 10 MB."""


class Base:
    """Looks up users' events of one snapshot.

    Args:
        snapshot: its folder.
        beside: the store's file, beside which the file of this snapshot lies.

    Attributes:
        has_times: whether the events have times, or an order alone.

    Raises:
        InputError: the folder is no snapshot, or its events can not be read.
    """

    def __init__(self, snapshot: Path, beside: Path) -> None:
        said = describe(snapshot)
        self.path = beside.with_name(f"{beside.stem}-base-{said['hash'][:16]}.db")
        if not self.path.exists():
            with turn(lock_of(beside, "base")):
                if not self.path.exists():
                    _make_apart(snapshot / "events.parquet", self.path)
                    _trim(beside)
        os.utime(self.path)
        self._lock = threading.Lock()
        self._ids: dict[int, str] = {}
        self._connection = connect(self.path, reads_only=True)
        self.has_times: bool = bool(self._connection.execute("SELECT has_times FROM about").fetchone()[0])
        self._names = [name for (name,) in self._connection.execute("SELECT name FROM names ORDER BY code")]

    def events(self, user_id: str) -> list[Event]:
        """A user's events, oldest first; empty where the snapshot has none. Without `has_times` a timestamp is a place in the order."""
        with self._lock:
            row = self._connection.execute('SELECT items, times, names, "values" FROM users WHERE user_id = ?', (user_id,)).fetchone()
            if row is None:
                return []
            codes = np.frombuffer(row[0], dtype="<i4").tolist()
            ids = self._ids
            if len(ids) > CACHED:
                ids.clear()
            if unknown := [code for code in set(codes) if code not in ids]:
                statement = "SELECT code, item_id FROM items WHERE code IN (SELECT value FROM json_each(?))"
                ids.update(self._connection.execute(statement, (json.dumps(unknown),)).fetchall())
            found = [ids[code] for code in codes]
        times, names = np.frombuffer(row[1], dtype="<i8").tolist(), np.frombuffer(row[2], dtype="<i2").tolist()
        values = np.frombuffer(row[3], dtype="<f8").tolist() if row[3] else [None] * len(codes)
        return [
            Event("", user_id, item_id, self._names[name], time, None if value is None or value != value else value)
            for item_id, time, name, value in zip(found, times, names, values, strict=True)
        ]

    def some_users(self, most: int) -> list[str]:
        """Users from all over the snapshot."""
        with self._lock:
            last = self._connection.execute("SELECT max(rowid) FROM users").fetchone()[0] or 0
            rows = np.linspace(1, last, min(most, last), dtype=np.int64).tolist()
            statement = "SELECT user_id FROM users WHERE rowid IN (SELECT value FROM json_each(?)) ORDER BY rowid"
            return [user for (user,) in self._connection.execute(statement, (json.dumps(rows),))]

    def users(self) -> Iterator[str]:
        """All users of the snapshot."""
        last = 0
        while True:
            with self._lock:
                rows = self._connection.execute("SELECT rowid, user_id FROM users WHERE rowid > ? ORDER BY rowid LIMIT ?", (last, PAGE))
                found = rows.fetchall()
            if not found:
                return
            last = found[-1][0]
            yield from (user for _, user in found)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()


def describe(snapshot: Path) -> dict[str, Any]:
    """What `snapshot.json` says.

    Raises:
        InputError: the folder is no snapshot.
    """
    try:
        said: dict[str, Any] = json.loads((snapshot / "snapshot.json").read_text(encoding="utf-8"))
        if not isinstance(said["hash"], str):
            raise ValueError("its hash is no text")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{snapshot} is not a snapshot ({error}). Name a folder under mlruns/snapshots.") from error
    return said


def _make_apart(parquet: Path, path: Path) -> None:
    command = [sys.executable, "-m", "nightloom.serving.store.base", str(parquet), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise InputError(f"{parquet}: the events can not be made ready for lookups: {last[0]}. Run the night again, or make space.")


def _trim(beside: Path) -> None:
    """Delete the files that were used longest ago; who has one open reads on."""
    files = sorted(beside.parent.glob(f"{beside.stem}-base-*.db"), key=lambda file: file.stat().st_mtime)
    for old in files[:-KEPT]:
        old.unlink(missing_ok=True)


def make(parquet: Path, path: Path) -> None:
    """Write the file, whole or not at all.

    Args:
        parquet: a snapshot's events, a file or a folder of parts: `user_id`, `item_id`, `timestamp` or `order`, `event`, perhaps `value`.
        path: of the file.
    """
    import duckdb

    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": "1GB",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    }
    with partial_folder(path.parent) as scratch, duckdb.connect(config=config) as source:
        partial = scratch / path.name
        partial.touch(mode=0o600)
        source.execute(f"SET temp_directory = '{str(scratch / 'spill').replace(chr(39), chr(39) * 2)}'")
        source.execute(
            "CREATE VIEW events AS SELECT * FROM read_parquet($place, file_row_number = true, filename = 'part__')".replace(
                "$place", _quoted(parquet / "*.parquet" if parquet.is_dir() else parquet)
            )
        )
        there = [name for (name, *_) in source.execute("DESCRIBE events").fetchall()]
        time = "epoch_ms(timestamp)" if "timestamp" in there else '"order"'
        value = "CAST(value AS DOUBLE)" if "value" in there else "CAST(NULL AS DOUBLE)"
        for table, column in (("users", "user_id"), ("items", "item_id"), ("names", "event")):
            source.execute(
                f"CREATE TABLE {table} AS SELECT CAST(id AS VARCHAR) AS id, CAST(row_number() OVER (ORDER BY id) - 1 AS INTEGER) AS code "
                f"FROM (SELECT DISTINCT {column} AS id FROM events)"
            )
        with closing(sqlite3.connect(partial, isolation_level=None)) as target:
            target.execute("PRAGMA journal_mode = OFF")
            target.execute("PRAGMA synchronous = OFF")
            target.execute("BEGIN")
            target.execute('CREATE TABLE users (user_id TEXT PRIMARY KEY, items BLOB, times BLOB, names BLOB, "values" BLOB)')
            target.execute("CREATE TABLE items (code INTEGER PRIMARY KEY, item_id TEXT)")
            target.execute("CREATE TABLE names (code INTEGER PRIMARY KEY, name TEXT)")
            target.execute("CREATE TABLE about (has_times INTEGER)")
            target.execute("INSERT INTO about VALUES (?)", ("timestamp" in there,))
            for table in ("items", "names"):
                target.executemany(f"INSERT INTO {table} VALUES (?, ?)", source.execute(f"SELECT code, id FROM {table}").fetchall())
            ordered = (
                f"SELECT u.code AS user, i.code AS item, CAST({time} AS BIGINT) AS time, CAST(n.code AS SMALLINT) AS name, "
                f"coalesce({value}, CAST('NaN' AS DOUBLE)) AS value "
                "FROM events e JOIN users u ON u.id = e.user_id JOIN items i ON i.id = e.item_id JOIN names n ON n.id = e.event "
                "WHERE u.code >= ? AND u.code < ? ORDER BY user, time, part__, file_row_number"
            )
            for first, last in _ranges(source):
                ids = [
                    one
                    for (one,) in source.execute(
                        "SELECT id FROM users WHERE code >= ? AND code < ? ORDER BY code", [first, last]
                    ).fetchall()
                ]
                columns = source.execute(ordered, [first, last]).fetchnumpy()
                target.executemany("INSERT INTO users VALUES (?, ?, ?, ?, ?)", _rows(ids, first, columns))
            target.execute("COMMIT")
        partial.replace(path)


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def _ranges(source: Any) -> Iterator[tuple[int, int]]:
    """Ranges of users that have some `PART` events each."""
    counts = source.execute("SELECT u.code, count(*) FROM events e JOIN users u ON u.id = e.user_id GROUP BY 1 ORDER BY 1").fetchall()
    first, rows = 0, 0
    for code, count in counts:
        rows += count
        if rows >= PART:
            yield first, code + 1
            first, rows = code + 1, 0
    if rows:
        yield first, len(counts)


def _rows(ids: list[str], first: int, columns: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """A row for each user of a range whose events stand one user after the other."""
    packed = {
        name: np.asarray(columns[name]).astype(kind) for name, kind in (("item", "<i4"), ("time", "<i8"), ("name", "<i2"), ("value", "<f8"))
    }
    ends = np.searchsorted(np.asarray(columns["user"]), np.arange(first, first + len(ids) + 1))
    for place, user_id in enumerate(ids):
        part = slice(ends[place], ends[place + 1])
        values = packed["value"][part]
        blobs = (packed[name][part].tobytes() for name in ("item", "time", "name"))
        yield (user_id, *blobs, None if np.isnan(values).all() else values.tobytes())


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]))
