"""The local file: SQLite in WAL mode, where a commit is on the disk when it returns, and a lock by which processes take turns."""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from nightloom.core.errors import InputError

VERSION = 1
"""Of the file's tables, kept as SQLite's user_version."""
BUSY_MS = 10_000
"""How long to wait for another program that holds SQLite's lock; the store's own processes wait for each other in `turn`."""
KEPT_WAL = 64 << 20
"""Bytes to which the write-ahead log is cut after a checkpoint."""


def create(path: Path) -> None:
    """Make the file with its tables, or find them made.

    Raises:
        InputError: the file is no store, or a newer Nightloom's.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with turn(path), closing(connect(path)) as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise InputError(f"{path} is a store of a newer Nightloom (version {version}; this one reads {VERSION}). Update Nightloom.")
            if version == 0:
                _make(connection, path)
    except sqlite3.DatabaseError as error:
        raise InputError(f"{path} can not be used as the service's store: {error}. Name another file, or bring this one back.") from error
    except OSError as error:
        raise InputError(f"{path} can not be used as the service's store: {error}. Name a folder that can be written.") from error


def _make(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise InputError(f"{path} is a database, and no store of the service. Name another file.")
    from sqlalchemy.dialects import sqlite  # here, since only a new file needs it
    from sqlalchemy.schema import CreateIndex, CreateTable

    from nightloom.serving.store.schema import LOCAL

    dialect = sqlite.dialect()
    connection.execute("BEGIN IMMEDIATE")
    for table in LOCAL.sorted_tables:
        connection.execute(str(CreateTable(table).compile(dialect=dialect)))
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            connection.execute(str(CreateIndex(index).compile(dialect=dialect)))
    writer = new_writer()
    connection.execute("INSERT INTO state (one, sequence, writer, sent) VALUES (1, 0, ?, 0)", (writer,))
    connection.execute("INSERT INTO writers (writer, number) VALUES (?, 0)", (writer,))
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")


def new_writer() -> int:
    """A writer's number: 31 random bits. Two files that drew the same are told apart when they first send (`central`)."""
    return secrets.randbelow(2**31 - 1) + 1


def connect(path: Path, *, reads_only: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode that any thread may use, one at a time."""
    mode = "ro" if reads_only else "rwc"
    connection = sqlite3.connect(
        f"file:{quote(str(path.resolve()))}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_MS / 1000
    )
    if not reads_only:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")  # who is forgotten leaves no bytes in free pages
        connection.execute(f"PRAGMA journal_size_limit = {KEPT_WAL}")
    return connection


@contextmanager
def turn(path: Path) -> Iterator[None]:
    """Hold the lock by which the processes of one file take turns: they sleep until it is free, where SQLite would ask again and again.

    Who waits first holds the place of the next one. Without it a process that is awake takes the lock again before one that slept.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    held = os.open(lock_of(path), flags, 0o644)
    try:
        following = os.open(lock_of(path, "next"), flags, 0o644)
        try:
            fcntl.flock(following, fcntl.LOCK_EX)
            fcntl.flock(held, fcntl.LOCK_EX)
        finally:
            os.close(following)
        yield
    finally:
        os.close(held)


def lock_of(path: Path, purpose: str = "lock") -> Path:
    """A lock file beside the database."""
    return path.with_name(f"{path.name}-{purpose}")
