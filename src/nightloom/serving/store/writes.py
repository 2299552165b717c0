"""Each thing that can be written, as it is done within the writer's transaction."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from nightloom.core.privacy_key import MARK
from nightloom.serving.store.errors import WriteRefused
from nightloom.serving.store.rows import Acknowledged, Event, Feedback, Item

Result_co = TypeVar("Result_co", covariant=True)

ADD_EVENTS = (
    "INSERT INTO events (sequence, event_id, user_id, item_id, event, timestamp, value, context, received, writer, number) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (event_id) DO NOTHING"
)
ADD_FEEDBACK = (
    "INSERT INTO feedback (sequence, feedback_id, kind, token, timestamp, user_id, item_id, position, depth, value, event, received, "
    "writer, number) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (feedback_id) DO NOTHING"
)

LONGEST = 512
"""Characters of an id or a name: PostgreSQL's indexes take no more than some 2,700 bytes."""
YEAR_10000 = 253_402_300_800_000
BIGGEST = 2**63


@dataclass
class Transaction:
    """The transaction that a group of writes shares.

    Attributes:
        writer: this file's own number.
        sequence: the last that was given.
        now: when the group was received.
    """

    connection: sqlite3.Connection
    writer: int
    sequence: int
    now: int

    def take(self) -> int:
        """The next number."""
        self.sequence += 1
        return self.sequence


class Write(Protocol, Generic[Result_co]):
    """Something to write."""

    @property
    def rows(self) -> int:
        """How many rows it counts for in the queue."""

    def run(self, transaction: Transaction) -> Result_co:
        """Do it."""


@dataclass(frozen=True)
class AddEvents:
    """Store events, each once.

    Raises:
        WriteRefused: a value is none that every database takes.
    """

    events: Sequence[Event]

    def __post_init__(self) -> None:
        for event in self.events:
            _check(event.timestamp, event.value, event_id=event.event_id, user_id=event.user_id, item_id=event.item_id, event=event.event)

    @property
    def rows(self) -> int:
        """One a row."""
        return len(self.events)

    def run(self, transaction: Transaction) -> Acknowledged:
        """Insert those whose id is new."""
        return _add(transaction, self.events)


def _add(transaction: Transaction, events: Sequence[Event]) -> Acknowledged:
    writer, now, take = transaction.writer, transaction.now, transaction.take

    def row(event: Event) -> tuple[Any, ...]:
        at, context = take(), None if event.context is None else dumped(event.context)
        said = (event.event_id, event.user_id, event.item_id, event.event, event.timestamp, event.value, context)
        return (at, *said, now, writer, at)

    return _insert(transaction.connection, ADD_EVENTS, [row(event) for event in events])


@dataclass(frozen=True)
class AddFeedback:
    """Store feedback, each once; what is an event as well is stored as one, too.

    Raises:
        WriteRefused: a value is none that every database takes.
    """

    feedback: Sequence[Feedback]

    def __post_init__(self) -> None:
        for one in self.feedback:
            said = {"user_id": one.user_id, "item_id": one.item_id, "event": one.event}
            _check(
                one.timestamp,
                one.value,
                feedback_id=one.feedback_id,
                kind=one.kind,
                **{name: text for name, text in said.items() if text is not None},
            )
            if "\0" in one.token:
                raise WriteRefused("token: holds a NUL character")
            if any(number is not None and not -BIGGEST <= number < BIGGEST for number in (one.position, one.depth)):
                raise WriteRefused("position, depth: beyond 64 bits")

    @property
    def rows(self) -> int:
        """One a row."""
        return len(self.feedback)

    def run(self, transaction: Transaction) -> Acknowledged:
        """Insert those whose id is new."""
        writer, now, take = transaction.writer, transaction.now, transaction.take

        def row(one: Feedback) -> tuple[Any, ...]:
            at = take()
            said = (one.feedback_id, one.kind, one.token, one.timestamp, one.user_id, one.item_id, one.position, one.depth)
            return (at, *said, one.value, one.event, now, writer, at)

        done = _insert(transaction.connection, ADD_FEEDBACK, [row(one) for one in self.feedback])
        events = [
            Event(f"feedback:{one.feedback_id}", one.user_id, one.item_id, one.event, one.timestamp, one.value)
            for one in self.feedback
            if one.event is not None and one.user_id is not None and one.item_id is not None
        ]
        _add(transaction, events)
        return done


@dataclass(frozen=True)
class DeleteEvent:
    """Delete an event; says whether there is one of that id."""

    event_id: str
    rows: int = 1

    def run(self, transaction: Transaction) -> bool:
        """Mark it; the row stays, so that readers learn of it and the id is not stored again."""
        run = transaction.connection.execute
        found = run("SELECT deleted FROM events WHERE event_id = ?", (self.event_id,)).fetchone()
        if found is not None and not found[0]:
            at = transaction.take()
            change = "UPDATE events SET deleted = 1, replaced = sequence, sequence = ?, writer = ?, number = ? WHERE event_id = ?"
            run(change, (at, transaction.writer, at, self.event_id))
        return found is not None


@dataclass(frozen=True)
class PutItem:
    """Say all that is known of an item."""

    item_id: str
    columns: Mapping[str, Any]
    rows: int = 1

    def __post_init__(self) -> None:
        _check(item_id=self.item_id)

    def run(self, transaction: Transaction) -> Item:
        """Replace what was said."""
        columns = {name: value for name, value in self.columns.items() if value is not None}
        return _keep(transaction, self.item_id, columns, whole=True, before=_item(transaction, self.item_id))


@dataclass(frozen=True)
class PatchItem:
    """Change some columns of an item; None takes a column away. No result where it was deleted."""

    item_id: str
    columns: Mapping[str, Any]
    rows: int = 1

    def __post_init__(self) -> None:
        _check(item_id=self.item_id)

    def run(self, transaction: Transaction) -> Item | None:
        """Lay the columns over what was said."""
        before = _item(transaction, self.item_id)
        if before is not None and before.deleted:
            return None
        whole = before is not None and before.whole
        columns = {**(before.columns if before else {}), **self.columns}
        kept = {name: value for name, value in columns.items() if value is not None or not whole}
        return _keep(transaction, self.item_id, kept, whole=whole, before=before)


@dataclass(frozen=True)
class DeleteItem:
    """Take an item out of what is offered, whether it was said here or is of the catalogue."""

    item_id: str
    rows: int = 1

    def __post_init__(self) -> None:
        _check(item_id=self.item_id)

    def run(self, transaction: Transaction) -> Item:
        """Mark it."""
        before = _item(transaction, self.item_id)
        if before is not None and before.deleted:
            return before
        return _keep(transaction, self.item_id, {}, whole=True, before=before, deleted=True)


@dataclass(frozen=True)
class Forget:
    """Remove all rows of a user, and remember that those of the snapshot do not count; says how many rows went.

    Attributes:
        user_id: whose.
        mark: what stands for the id from now on (`nightloom.core.privacy_key.forgotten_mark`). None: the id itself, as long as it is in
            snapshots and other files, which the next night goes through.
    """

    user_id: str
    mark: str | None = None
    rows: int = 1

    def __post_init__(self) -> None:
        _check(user_id=self.user_id)
        if self.user_id.startswith(MARK):
            raise WriteRefused(f"user_id: no id of a person begins with {MARK}")

    def run(self, transaction: Transaction) -> int:
        """Delete and note."""
        run, gone = transaction.connection.execute, 0
        for table in ("events", "feedback"):
            gone += run(f"DELETE FROM {table} WHERE user_id = ?", (self.user_id,)).rowcount
        if self.mark is not None:
            run("DELETE FROM forgotten WHERE user_id = ?", (self.user_id,))
        at = transaction.take()
        run(
            "INSERT INTO forgotten (sequence, user_id, received, writer, number) VALUES (?, ?, ?, ?, ?) ON CONFLICT (user_id) DO UPDATE "
            "SET sequence = excluded.sequence, received = excluded.received, writer = excluded.writer, number = excluded.number",
            (at, self.mark or self.user_id, transaction.now, transaction.writer, at),
        )
        transaction.now += 1  # what the same group adds for this user afterwards counts again
        return gone


ITEM_COLUMNS = "item_id, columns, whole, deleted, version, changed"


def item_of(row: tuple[Any, ...]) -> Item:
    """An item out of its `ITEM_COLUMNS`."""
    item_id, columns, whole, deleted, version, changed = row
    return Item(item_id, json.loads(columns), bool(whole), bool(deleted), version, changed)


def dumped(columns: Mapping[str, Any]) -> str:
    """Columns as JSON text.

    Raises:
        TypeError: a value is none of JSON's.
        ValueError: a number is not finite.
    """
    return json.dumps(dict(columns), ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _check(timestamp: int = 0, value: float | None = None, **ids: str) -> None:
    """Refuse what SQLite would take and PostgreSQL not: such a row would stop the outbox for good.

    Raises:
        WriteRefused: names the field.
    """
    for name, text in ids.items():
        if not 0 < len(text) <= LONGEST:
            raise WriteRefused(f"{name}: has {len(text):,} characters; 1 to {LONGEST} characters are taken")
        if "\0" in text:
            raise WriteRefused(f"{name}: {text!r} holds a NUL character")
    if not -YEAR_10000 < timestamp < YEAR_10000:
        raise WriteRefused(f"timestamp: {timestamp} is no time before the year 10000 in milliseconds since 1970")
    if value is not None and not math.isfinite(value):
        raise WriteRefused(f"value: {value} is not finite")


def _item(transaction: Transaction, item_id: str) -> Item | None:
    row = transaction.connection.execute(f"SELECT {ITEM_COLUMNS} FROM items WHERE item_id = ?", (item_id,)).fetchone()
    return None if row is None else item_of(row)


def _keep(
    transaction: Transaction, item_id: str, columns: Mapping[str, Any], *, whole: bool, before: Item | None, deleted: bool = False
) -> Item:
    at = transaction.take()
    changed = max(transaction.now, before.changed + 1 if before else 0)  # a machine whose clock is behind still comes after what it saw
    item = Item(item_id, columns, whole, deleted, before.version + 1 if before else 1, changed)
    said = (item_id, dumped(columns), whole, deleted, item.version, changed, transaction.writer, at)
    transaction.connection.execute(
        f"INSERT OR REPLACE INTO items (sequence, {ITEM_COLUMNS}, writer, number) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (at, *said)
    )
    return item


def _insert(connection: sqlite3.Connection, statement: str, rows: Sequence[tuple[Any, ...]]) -> Acknowledged:
    before = connection.total_changes
    connection.executemany(statement, rows)
    new = connection.total_changes - before
    return Acknowledged(new, len(rows) - new)
