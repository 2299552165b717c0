"""The thread that carries rows to PostgreSQL and those of other machines back; one of a file's processes has it.

The file is an outbox: what is acknowledged here goes over when it can, in order, and counts once by its id. Rows of other machines are
written into the file, so that all processes of this machine read them as they read each other's.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from nightloom.core.privacy_key import MARK
from nightloom.serving.store.central import KEYS, ROWS, Central, Foreign, Rows, told
from nightloom.serving.store.database import connect, lock_of, new_writer, turn
from nightloom.serving.store.marks import Marks
from nightloom.serving.store.schema import CENTRAL
from nightloom.serving.store.writer import begin

TICK_SECONDS = 0.05
"""How often to look whether there is something to send. Each time costs a commit of PostgreSQL and a turn in the file."""
PULL_SECONDS = 0.2
"""How often to ask for other machines' rows."""
RETRY_SECONDS = (0.25, 3.0)
"""First and longest wait while PostgreSQL does not answer."""
TAKE_OVER_SECONDS = 1.0
"""How often a process asks whether it is its turn to carry."""
COLUMNS = {name: [column.name for column in CENTRAL.tables[name].columns] for name in KEYS}


class Exchange:
    """Carries rows for one file.

    Args:
        path: of the file.
        central: where to.

    Attributes:
        error: why rows do not go over now; None where they do, or where another process carries them.
    """

    def __init__(self, path: Path, central: Central) -> None:
        self.path, self.central = path, central
        self.error: str | None = None
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"store-exchange {path.name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Send what waits, if PostgreSQL answers, and end."""
        self._ends.set()
        self._thread.join()
        self.central.close()

    def _work(self) -> None:
        handle = os.open(lock_of(self.path, "exchange"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            while not self._ends.is_set():
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    self._ends.wait(TAKE_OVER_SECONDS)
                    continue
                with closing(connect(self.path)) as connection:
                    # Without an fsync a commit of this connection may be lost with the machine's power: the rows are then carried again.
                    connection.execute("PRAGMA synchronous = NORMAL")
                    self._carry(connection)
        finally:
            os.close(handle)

    def _carry(self, connection: sqlite3.Connection) -> None:
        wait = RETRY_SECONDS[0]
        while True:
            last_round = self._ends.is_set()
            try:
                self.central.ready()
                _agree(connection, self.path, self.central)
                self._until_it_fails(connection)
                return
            except Foreign:
                _renew(connection, self.path)
                continue
            except Exception as error:  # whatever it is, the rows are here, and the thread lives on to try again
                self.error = told(error) if isinstance(error, SQLAlchemyError) else f"{type(error).__name__}: {error}"
            if last_round:
                return
            self._ends.wait(wait)
            wait = min(2 * wait, RETRY_SECONDS[1])

    def _until_it_fails(self, connection: sqlite3.Connection) -> None:
        """Send and fetch until the store is closed."""
        version, asked = -1, 0.0
        while True:
            ends = self._ends.is_set()
            now = connection.execute("PRAGMA data_version").fetchone()[0]
            if now != version or ends:
                while _send(connection, self.path, self.central):
                    pass
                version, self.error = now, None
            if ends:
                return
            if time.monotonic() - asked >= PULL_SECONDS:
                _fetch(connection, self.path, self.central)
                asked, self.error = time.monotonic(), None
            self._ends.wait(TICK_SECONDS)


def _agree(connection: sqlite3.Connection, path: Path, central: Central) -> None:
    """Begin where PostgreSQL is: a process may have ended before it noted what it sent, or a backup of PostgreSQL was brought back."""
    writer, sent = connection.execute("SELECT writer, sent FROM state").fetchone()
    last = connection.execute("SELECT number FROM writers WHERE writer = ?", (writer,)).fetchone()[0]
    head = central.head(writer)
    if head > last:
        raise Foreign
    if head < sent:
        _change(connection, path, "UPDATE state SET sent = ?", (head,))


def _send(connection: sqlite3.Connection, path: Path, central: Central) -> bool:
    """Send the next rows; whether there were any."""
    run = connection.execute
    run("BEGIN")
    try:
        writer, sent = run("SELECT writer, sent FROM state").fetchone()
        last = run("SELECT number FROM writers WHERE writer = ?", (writer,)).fetchone()[0]
        found: dict[str, list[dict[str, Any]]] = {}
        for name, columns in COLUMNS.items():
            quoted = ", ".join(f'"{column}"' for column in columns)
            statement = f"SELECT {quoted} FROM {name} WHERE writer = ? AND number > ? AND number <= ? ORDER BY number LIMIT ?"
            rows = run(statement, (writer, sent, last, ROWS)).fetchall()
            if len(rows) == ROWS:
                last = rows[-1][columns.index("number")]
            found[name] = [dict(zip(columns, row, strict=True)) for row in rows]
    finally:
        run("COMMIT")
    if last <= sent:
        return False
    central.push(writer, {name: [row for row in rows if row["number"] <= last] for name, rows in found.items()}, last)
    _change(connection, path, "UPDATE state SET sent = ? WHERE writer = ?", (last, writer))
    return True


def _fetch(connection: sqlite3.Connection, path: Path, central: Central) -> None:
    """Fetch what other writers have sent since the last time."""
    own = connection.execute("SELECT writer FROM state").fetchone()[0]
    here = dict(connection.execute("SELECT writer, number FROM writers").fetchall())
    for writer, head in central.heads().items():
        after = here.get(writer, 0)
        while writer != own and after < head:
            rows, after = central.pull(writer, after, head)
            _absorb(connection, path, writer, rows, after)


def _absorb(connection: sqlite3.Connection, path: Path, writer: int, rows: Rows, through: int) -> None:
    """Write another machine's rows into the file, with the note of how far they go."""
    marks = Marks(path)
    with turn(path):
        run = connection.execute
        run("BEGIN IMMEDIATE")
        try:
            transaction = begin(connection)
            told_of = [(row["number"], name, row) for name, said in rows.items() for row in said]
            for _, name, row in sorted(told_of, key=lambda one: one[0]):
                _take_in(connection, name, row, transaction.take(), marks)
            run("UPDATE state SET sequence = ?", (transaction.sequence,))
            run(
                "INSERT INTO writers (writer, number) VALUES (?, ?) ON CONFLICT (writer) DO UPDATE SET number = excluded.number",
                (writer, through),
            )
            run("COMMIT")
        except BaseException:
            if connection.in_transaction:
                run("ROLLBACK")
            raise


def _take_in(connection: sqlite3.Connection, name: str, row: Mapping[str, Any], sequence: int, marks: Marks) -> None:
    run, key = connection.execute, row[KEYS[name]]
    if name in ("events", "feedback"):
        asked = run("SELECT received FROM forgotten WHERE user_id = ?", (row["user_id"],)).fetchone()
        by_mark = None if row["user_id"] is None else marks.received(connection, row["user_id"])
        if row["received"] <= max(asked[0] if asked else -1, -1 if by_mark is None else by_mark):
            return
        _insert(connection, name, row, sequence, "INSERT OR IGNORE")
        if name == "events" and row["deleted"]:
            run(
                "UPDATE events SET deleted = 1, replaced = sequence, sequence = ?, writer = ?, number = ? "
                "WHERE event_id = ? AND deleted = 0",
                (sequence, row["writer"], row["number"], key),
            )
        return
    newest = {"items": "changed, columns", "forgotten": "received"}[name]
    there = run(f"SELECT {newest} FROM {name} WHERE {KEYS[name]} = ?", (key,)).fetchone()
    if there is not None and there >= tuple(row[column] for column in newest.split(", ")):
        return
    _insert(connection, name, row, sequence, "INSERT OR REPLACE")
    if name == "forgotten":
        for user in _meant(connection, key, marks):
            for table in ("events", "feedback"):
                run(f"DELETE FROM {table} WHERE user_id = ? AND received <= ?", (user, row["received"]))


def _meant(connection: sqlite3.Connection, key: str, marks: Marks) -> list[str]:
    """The people with rows here whom an id, or a mark, means.

    Raises:
        InputError: another key made the mark.
    """
    if not key.startswith(MARK):
        return [key]
    marks.check([key])
    users = connection.execute("SELECT user_id FROM events UNION SELECT user_id FROM feedback WHERE user_id IS NOT NULL")
    return [user for (user,) in users.fetchall() if marks.of(user) == key]


def _insert(connection: sqlite3.Connection, name: str, row: Mapping[str, Any], sequence: int, verb: str) -> None:
    columns = COLUMNS[name]
    named, marks = ", ".join(f'"{column}"' for column in columns), ", ".join("?" * (len(columns) + 1))
    connection.execute(f"{verb} INTO {name} (sequence, {named}) VALUES ({marks})", (sequence, *(row[column] for column in columns)))


def _renew(connection: sqlite3.Connection, path: Path) -> None:
    """Give the file a number of its own, under which goes what it has not sent; the other file keeps the old one."""
    with turn(path):
        run, new = connection.execute, new_writer()
        run("BEGIN IMMEDIATE")
        old, sent, sequence = run("SELECT writer, sent, sequence FROM state").fetchone()
        for name in KEYS:
            run(f"UPDATE {name} SET writer = ? WHERE writer = ? AND number > ?", (new, old, sent))
        run("UPDATE state SET writer = ?", (new,))
        run("UPDATE writers SET number = ? WHERE writer = ?", (sent, old))
        run("INSERT INTO writers (writer, number) VALUES (?, ?)", (new, sequence))
        run("COMMIT")


def _change(connection: sqlite3.Connection, path: Path, statement: str, values: Sequence[int]) -> None:
    with turn(path):
        connection.execute(statement, values)
