"""The one thread of a process that writes: what waits is committed together, and each sender is told when it is on the disk."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from nightloom.serving.store.database import connect, turn
from nightloom.serving.store.errors import StoreBusy, StoreClosed, StoreError, StoreFull, WriteRefused
from nightloom.serving.store.writes import Transaction, Write

Result = TypeVar("Result")

QUEUE_ROWS = 20_000
"""Rows that may wait; more are refused. A single larger write is taken when nothing waits."""
GROUP_ROWS = 4_000
"""Rows that one commit takes, so that a flood of them holds up the others for some 50 ms."""
NO_SPACE = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY})
"""SQLite's codes (low byte) where the disk takes no more."""


@dataclass
class _Job:
    write: Write[Any]
    future: Future[Any]


class Writer:
    """Writes into one file.

    Args:
        path: of the file; `database.create` made it.
        queue_rows: see `QUEUE_ROWS`.

    Attributes:
        last: the last number that was given here; what a future tells of is not above it.
    """

    def __init__(self, path: Path, queue_rows: int = QUEUE_ROWS) -> None:
        self.path, self.queue_rows = path, queue_rows
        self._connection: sqlite3.Connection | None = connect(path)
        self._jobs: deque[_Job] = deque()
        self._waiting = 0
        self.last = 0
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name=f"store-writer {path.name}", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Rows that wait now."""
        return self._waiting

    def submit(self, write: Write[Result]) -> Future[Result]:
        """Have something written.

        Returns:
            The result, once it is on the disk; or a `StoreError`.

        Raises:
            StoreBusy: the queue is full.
            StoreClosed: the store is closed.
        """
        job = _Job(write, Future())
        with self._changed:
            if self._closing:
                raise StoreClosed(f"{self.path}: the store is closed")
            if self._waiting and self._waiting + write.rows > self.queue_rows:
                raise StoreBusy(f"{self.path}: {self._waiting:,} rows wait to be written, and no more are taken. Try again a little later.")
            self._jobs.append(job)
            self._waiting += write.rows
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """Write what waits, then end; what comes meanwhile is refused."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while jobs := self._next():
            jobs = [job for job in jobs if job.future.set_running_or_notify_cancel()]
            try:
                self._commit(jobs)
            except BaseException as error:  # whatever it is, its senders wait for an answer, and the thread lives on
                for job in jobs:
                    if not job.future.done():
                        job.future.set_exception(error)
        if self._connection is not None:
            self._connection.close()

    def _next(self) -> list[_Job]:
        """What waits, up to a group; empty when the store is closed and all is written."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closing)
            jobs, rows = list[_Job](), 0
            while self._jobs and (not jobs or rows + self._jobs[0].write.rows <= GROUP_ROWS):
                jobs.append(self._jobs.popleft())
                rows += jobs[-1].write.rows
            self._waiting -= rows
            return jobs

    def _commit(self, jobs: list[_Job]) -> None:
        """Write a group; where one of it is refused, each by itself."""
        if not jobs:
            return
        try:
            results = self._transact(jobs)
        except StoreError as error:
            for job in jobs:
                job.future.set_exception(error)
            return
        except (sqlite3.Error, ValueError, TypeError, OverflowError) as error:
            if len(jobs) > 1:
                for job in jobs:
                    self._commit([job])
            else:
                refused = WriteRefused(f"{self.path}: a value can not be stored: {error}")
                refused.__cause__ = error
                jobs[0].future.set_exception(refused)
            return
        for job, result in zip(jobs, results, strict=True):
            job.future.set_result(result)

    def _transact(self, jobs: list[_Job]) -> list[Any]:
        try:
            with turn(self.path):
                if self._connection is None:
                    self._connection = connect(self.path)
                connection = self._connection
                connection.execute("BEGIN IMMEDIATE")
                try:
                    transaction = begin(connection)
                    results = [job.write.run(transaction) for job in jobs]
                    finish(transaction)
                    connection.execute("COMMIT")
                except BaseException:
                    with contextlib.suppress(sqlite3.Error):  # what failed counts, and not that SQLite has rolled back by itself
                        connection.execute("ROLLBACK")
                    raise
        except OSError as error:  # of the lock file
            raise StoreFull(f"{self.path} can not be written: {error}. Make space; nothing of this write is kept.") from error
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in NO_SPACE:
                self._reconnect()
                raise StoreFull(
                    f"{self.path} can not be written: {error}. Make space on its disk; nothing of this write is kept."
                ) from error
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise StoreBusy(f"{self.path} is locked by another program: {error}. Try again when it has ended.") from error
            raise
        self.last = transaction.sequence
        return results

    def _reconnect(self) -> None:
        """Forget a connection whose write failed: the next one reads from the disk what is there."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None


def begin(connection: sqlite3.Connection) -> Transaction:
    """The transaction that the connection has begun."""
    sequence, writer = connection.execute("SELECT sequence, writer FROM state").fetchone()
    return Transaction(connection, writer, sequence, int(time.time() * 1000))


def finish(transaction: Transaction) -> None:
    """Note what numbers were given, before the commit."""
    run, last = transaction.connection.execute, transaction.sequence
    run("UPDATE state SET sequence = ?", (last,))
    run("UPDATE writers SET number = ? WHERE writer = ?", (last, transaction.writer))
