"""Taking a person out of the store's files for good, while services may have them open."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from nightloom.serving.store.database import BUSY_MS, connect
from nightloom.serving.store.store import Store
from nightloom.serving.store.writes import Forget, HideForgotten


def erase_from_store(path: Path, user: str, hash_: str | None) -> int:
    """Delete a person's rows and put the keyed hash in the place of the id; how many rows went. None of the id is left in the file.

    Only after this can a snapshot's events of the person count again: they have to be taken out of it.

    Args:
        path: of the store's file; nothing is done where there is none.
        user: the id.
        hash_: what stands for it from now on. None: the id stays, by which other machines know whom they must not send again.
    """
    if not path.is_file():
        return 0
    store = Store.open(path)
    try:
        rows = store.submit(Forget(user)).result()
        if hash_ is not None:
            store.submit(HideForgotten(user, hash_)).result()
    finally:
        store.close()
    with closing(connect(path)) as connection:
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return rows


def erase_from_base(path: Path, user: str) -> bool:
    """Take a person out of a file of a snapshot's events; whether the person was there."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=BUSY_MS / 1000)) as connection:
        connection.execute("PRAGMA secure_delete = ON")
        gone = connection.execute("DELETE FROM users WHERE user_id = ?", (user,)).rowcount
        if gone:
            connection.execute("VACUUM")
    return bool(gone)


def wishes(path: Path) -> list[tuple[str, str]]:
    """People who asked the service to be forgotten, and of whom only the store was cleared: id, and day of the wish (UTC)."""
    if not path.is_file():
        return []
    with closing(connect(path, reads_only=True)) as connection:
        rows = connection.execute("SELECT user_id, received FROM forgotten ORDER BY sequence").fetchall()
    return [
        (user, datetime.fromtimestamp(received / 1000, UTC).strftime("%Y-%m-%d"))
        for user, received in rows
        if not user.startswith(HideForgotten.MARK)
    ]
