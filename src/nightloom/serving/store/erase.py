"""Taking a person out of the store for good, its files and PostgreSQL, while services may have them open."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from nightloom.core.errors import InputError
from nightloom.core.privacy_key import MARK
from nightloom.runs.service_store import EVENTS_URL
from nightloom.serving.store.database import BUSY_MS, connect
from nightloom.serving.store.store import Store
from nightloom.serving.store.writes import Forget


def erase_from_store(path: Path, user: str, mark: str, url: str | None = None) -> int:
    """Delete a person's rows, here and in PostgreSQL, and put the mark in the place of the id; how many rows of this machine went.

    Args:
        path: of the store's file; without PostgreSQL nothing is done where there is none.
        user: the id.
        mark: what stands for it from now on.
        url: of PostgreSQL, where machines share rows.

    Raises:
        InputError: rows went to PostgreSQL before, and no address of it is given.
        NightloomError: PostgreSQL does not answer.
    """
    if url is None and not path.is_file():
        return 0
    if url is None and _sent(path):
        raise InputError(f"{path}: its rows are in PostgreSQL, too. Set {EVENTS_URL} to its address, as for the service.")
    store = Store.open(path, url)
    try:
        rows = store.submit(Forget(user, mark), "central").result()
    finally:
        store.close()
    if url is not None:
        from nightloom.serving.store.central import Central

        central = Central(url, path.stem)
        try:
            central.erase(user, mark)
        finally:
            central.close()
    compact(path)
    return rows


def compact(path: Path) -> None:
    """Leave no bytes of rows that are gone in the store's file, where there is one."""
    if path.is_file():
        with closing(connect(path)) as connection:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _sent(path: Path) -> bool:
    """Whether a file's rows have gone to PostgreSQL."""
    with closing(connect(path, reads_only=True)) as connection:
        return bool(connection.execute("SELECT sent FROM state").fetchone()[0])


def erase_from_base(path: Path, user: str) -> bool:
    """Take a person out of a file of a snapshot's events; whether the person was there."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=BUSY_MS / 1000)) as connection:
        connection.execute("PRAGMA secure_delete = ON")
        gone = connection.execute("DELETE FROM users WHERE user_id = ?", (user,)).rowcount
        if gone:
            connection.execute("VACUUM")
    return bool(gone)


def wishes(path: Path, url: str | None = None) -> list[tuple[str, str]]:
    """People who asked a service to be forgotten, and of whom only the store was cleared: id, and day of the wish (UTC)."""
    found = {user: received for user, received in _forgotten(path, url) if not user.startswith(MARK)}
    return [(user, datetime.fromtimestamp(received / 1000, UTC).strftime("%Y-%m-%d")) for user, received in found.items()]


def marks_in(path: Path, url: str | None = None) -> frozenset[str]:
    """Marks of people who were forgotten, on this machine or on another one that shares the store."""
    return frozenset(mark for mark, _ in _forgotten(path, url) if mark.startswith(MARK))


def _forgotten(path: Path, url: str | None) -> list[tuple[str, int]]:
    """Ids and marks of people who are not to be known, and when they asked, in milliseconds; those of this machine first."""
    found = list[tuple[str, int]]()
    if path.is_file():
        with closing(connect(path, reads_only=True)) as connection:
            found += connection.execute("SELECT user_id, received FROM forgotten ORDER BY sequence").fetchall()
    if url is not None:
        from nightloom.serving.store.central import Central

        central = Central(url, path.stem)
        try:
            found += central.forgotten()
        finally:
            central.close()
    return found
