"""Reading the store as one champion needs it: what is new since the last look, and users' histories on top of its snapshot."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from nightloom.core.errors import InputError
from nightloom.serving.store.base import Base, describe
from nightloom.serving.store.database import connect
from nightloom.serving.store.marks import IS_MARK, Marks
from nightloom.serving.store.rows import Change, DeletedEvent, Event, Feedback, Forgotten
from nightloom.serving.store.writes import ITEM_COLUMNS, item_of

EVENT_COLUMNS = "event_id, user_id, item_id, event, timestamp, value, context"
FEEDBACK_COLUMNS = "feedback_id, kind, token, timestamp, user_id, item_id, position, depth, value, event"
TOLD = {
    "events": f"{EVENT_COLUMNS}, deleted, replaced",
    "feedback": FEEDBACK_COLUMNS,
    "items": ITEM_COLUMNS,
    "forgotten": "user_id, received",
}
"""Table -> columns of the rows that are told."""
CHUNK = 5_000
"""Rows of a table that are held at a time."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some of a user's events, newest first.

    Attributes:
        next: cursor of the page after this one; None where there is none.
    """

    events: Sequence[Event]
    next: str | None


class View:
    """A reader of one file, for any thread. Changes come in the order of their commits, each once, and not those that the snapshot holds.

    Args:
        path: of the store's file.
        base: folder of the snapshot that the champion was trained on; None where it is not here.
        through: writer -> last number that the champion has learned from, where `base` is None. Empty: nothing.
    """

    def __init__(self, path: Path, base: Path | None = None, through: Mapping[int, int] | None = None) -> None:
        self._base = None if base is None else Base(base, path)
        self._through = dict(through or {}) if base is None else store_rows(base)
        self._marks = Marks(path)
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._connection = connect(path, reads_only=True)  # of `changes` alone: data_version must see every commit of others
        self._reader = connect(path, reads_only=True)
        self._version = -1
        self._cursor = self._start()
        self._span = (self._cursor, self._cursor)  # what `changes` had told before its last call, and what it tells in it

    def changes(self) -> Iterator[Change]:
        """What was committed since the last call, by any process; some 5 us where nothing was.

        Iterate to the end: the transaction in which it is read lasts until then. One thread does so at a time.
        """
        version = self._connection.execute("PRAGMA data_version").fetchone()[0]
        return iter(()) if version == self._version else self._new(version)

    def _new(self, version: int) -> Iterator[Change]:
        with self._reading:
            run, told = self._connection.execute, self._cursor
            run("BEGIN")
            try:
                last = run("SELECT sequence FROM state").fetchone()[0]
                self._span = (told, last)
                while self._cursor < last:
                    rows, reached = self._chunk(self._cursor, last, told)
                    for sequence, change in rows:
                        self._cursor = sequence
                        yield change
                    self._cursor = reached
                self._version = version  # read before the rows were: a later commit shows in the next call
            finally:
                run("COMMIT")

    def _chunk(self, after: int, last: int, told: int) -> tuple[list[tuple[int, Change]], int]:
        """The next rows in order, and the sequence up to which there are none besides."""
        found: list[tuple[int, Change]] = []
        for table, columns in TOLD.items():
            statement = (
                f"SELECT sequence, writer, number, {columns} FROM {table} WHERE sequence > ? AND sequence <= ? ORDER BY sequence LIMIT ?"
            )
            rows = self._connection.execute(statement, (after, last, CHUNK)).fetchall()
            if len(rows) == CHUNK:  # there may be more: what other tables have beyond waits
                last = rows[-1][0]
            for sequence, writer, number, *row in rows:
                if number > self._through.get(writer, 0) and (change := _change(table, row, told)) is not None:
                    found.append((sequence, change))
        return sorted([one for one in found if one[0] <= last], key=itemgetter(0)), last

    def _start(self) -> int:
        """The sequence up to which the champion has learned from all rows, or they were gone."""
        run = self._connection.execute
        own = run("SELECT writer FROM state").fetchone()[0]
        firsts = [self._through.get(own, 0)]  # an own row's number is its sequence
        for (writer,) in run("SELECT writer FROM writers WHERE writer <> ?", (own,)).fetchall():
            for table in TOLD:
                statement = f"SELECT sequence FROM {table} WHERE writer = ? AND number > ? ORDER BY number LIMIT 1"
                row = run(statement, (writer, self._through.get(writer, 0))).fetchone()
                firsts += [] if row is None else [row[0] - 1]
        return min(firsts)

    @property
    def cursor(self) -> int:
        """Sequence of the row that `changes` told last: all rows up to it were told, or the champion knew them."""
        return self._cursor

    def some_users(self, most: int) -> list[str]:
        """Users of the snapshot, from all over it; none without a snapshot."""
        return [] if self._base is None else self._base.some_users(most)

    def users(self, told: Iterable[str]) -> Iterator[str]:
        """All users of the snapshot, and those who are named besides, each once."""
        here = set[str]()
        for user in () if self._base is None else self._base.users():
            here.add(user)
            yield user
        yield from sorted(set(told) - here)

    def trained_on(self, user_id: str) -> list[Event]:
        """A user's events in the snapshot alone, oldest first; none of people who were forgotten since."""
        if self._base is None:
            return []
        with self._lock:
            gone, _ = self._hidden(user_id)
        return [] if gone else self._base.events(user_id)

    def history(self, user_id: str, limit: int, through: int | None = None) -> list[Event]:
        """A user's latest events, oldest first: those of the snapshot and those of the store, each once, without deleted ones.

        Args:
            limit: most events.
            through: the store as `changes` has told it up to the row of this sequence, of its last call or the last one before. Whoever
                applies changes one by one has not seen the others. None: as it is now. Users who were forgotten since are not there.
        """
        return [event for _, event in self._placed(user_id, limit, None, through)][::-1]

    def user(self, user_id: str, limit: int, cursor: str | None = None) -> Page:
        """A page of a user's events.

        Args:
            limit: most events on a page.
            cursor: `next` of the page before, or None for the first.

        Raises:
            InputError: the cursor is none of ours.
        """
        before = None
        if cursor is not None:
            time, _, place = cursor.partition("_")
            try:
                before = (int(time), int(place))
            except ValueError:
                raise InputError(f"cursor: {cursor!r} is not one that a page ended with") from None
        found = self._placed(user_id, limit + 1, before)
        more = len(found) > limit
        return Page([event for _, event in found[:limit]], "{}_{}".format(*found[limit - 1][0]) if more else None)

    def _placed(
        self, user_id: str, limit: int, before: tuple[int, int] | None, through: int | None = None
    ) -> list[tuple[tuple[int, int], Event]]:
        """The latest events before a place, newest first, each with its place: time and sequence, below zero for the snapshot's."""
        time, place = before or (1 << 62, 1 << 62)
        seen = 1 << 62 if through is None else through
        told, last = self._span
        with self._lock:
            run = self._reader.execute
            run("BEGIN")
            try:
                rows = run(
                    f"SELECT sequence, {EVENT_COLUMNS} FROM events WHERE user_id = ? AND timestamp <= ? "
                    "AND ((deleted = 0 AND sequence <= ?) OR "
                    "(deleted = 1 AND sequence > ? AND replaced <= ? AND (replaced <= ? OR sequence > ?))) "
                    "AND (timestamp < ? OR sequence < ?) ORDER BY timestamp DESC, sequence DESC LIMIT ?",
                    (user_id, time, seen, seen, seen, told, last, time, place, limit),
                ).fetchall()
                gone, hidden = self._hidden(user_id) if self._base is not None else (True, set[Any]())
            finally:
                run("COMMIT")
        own = [((row[5], row[0]), event_of(row[1:])) for row in rows]
        if self._base is None or gone:
            return own
        base = self._base.events(user_id)
        timed, first = self._base.has_times, -len(base)
        hidden = hidden if timed else {one[:2] for one in hidden}
        old = [
            ((event.timestamp if timed else first + at, first + at), event)
            for at, event in enumerate(base)
            if (event.item_id, event.event, event.timestamp)[: 3 if timed else 2] not in hidden
        ]
        kept = [one for one in old if before is None or one[0] < before]
        return sorted([*own, *kept], key=itemgetter(0), reverse=True)[:limit]

    def _hidden(self, user_id: str) -> tuple[bool, set[Any]]:
        """Whether the snapshot's events of a user do not count, and those that do not since the store has them, or had them deleted."""
        run = self._reader.execute
        if run("SELECT 1 FROM forgotten WHERE user_id = ?", (user_id,)).fetchone() is not None or self._marked(user_id):
            return True, set()
        return False, set(run("SELECT item_id, event, timestamp FROM events WHERE user_id = ?", (user_id,)).fetchall())

    def _marked(self, user_id: str) -> bool:
        """Whether a mark that the snapshot does not know of yet stands for a user."""
        run = self._reader.execute
        if run(f"SELECT 1 FROM forgotten WHERE {IS_MARK} LIMIT 1").fetchone() is None:
            return False
        row = run("SELECT writer, number FROM forgotten WHERE user_id = ?", (self._marks.of(user_id),)).fetchone()
        return row is not None and row[1] > self._through.get(row[0], 0)

    def close(self) -> None:
        """Close the connections."""
        with self._reading, self._lock:
            self._connection.close()
            self._reader.close()
        if self._base is not None:
            self._base.close()


def _change(table: str, row: Sequence[Any], told: int) -> Change | None:
    """A row as a change; None where an event came and was deleted before anybody was told.

    Args:
        told: the sequence up to which rows were told in earlier calls.
    """
    if table == "feedback":
        return Feedback(*row)
    if table == "items":
        return item_of(tuple(row))
    if table == "forgotten":
        return Forgotten(*row)
    *said, deleted, replaced = row
    event = event_of(said)
    if not deleted:
        return event
    return DeletedEvent(event) if replaced is not None and replaced <= told else None


def event_of(row: Sequence[Any]) -> Event:
    """An event out of its `EVENT_COLUMNS`."""
    *said, context = row
    return Event._make((*said, None if context is None else json.loads(context)))


def store_rows(snapshot: Path) -> dict[int, int]:
    """Writer -> last number of the store that a snapshot holds.

    Raises:
        InputError: the folder is no snapshot.
    """
    source = describe(snapshot).get("source") or {}
    return {int(writer): int(number) for writer, number in (source.get("store_rows") or {}).items()}
