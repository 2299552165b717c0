"""The store of one machine, as one of its processes opens it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from nightloom.serving.store.confirmed import Confirmed
from nightloom.serving.store.database import connect, create
from nightloom.serving.store.marks import Marks
from nightloom.serving.store.rows import Acknowledged, Event, Feedback, Item
from nightloom.serving.store.view import View
from nightloom.serving.store.writer import Writer
from nightloom.serving.store.writes import (
    ITEM_COLUMNS,
    AddEvents,
    AddFeedback,
    DeleteEvent,
    DeleteItem,
    Forget,
    PatchItem,
    PutItem,
    Write,
    item_of,
)

if TYPE_CHECKING:
    from nightloom.serving.store.central import Central
    from nightloom.serving.store.exchange import Exchange

Result = TypeVar("Result")
Ack = Literal["local", "central"]
TABLES = ("events", "feedback", "items", "forgotten")


@dataclass(frozen=True, slots=True)
class ItemPage:
    """Some of the items of which something was said by day, by id.

    Attributes:
        next: cursor of the page after this one; None where there is none.
    """

    items: Sequence[Item]
    next: str | None


class Store:
    """Events, feedback and items of one recommender; any thread may call it. Make one with `open`."""

    def __init__(self, path: Path, central: Central | None = None, ack: Ack = "local") -> None:
        self.path, self.ack = path, ack
        self._writer = Writer(path)
        self._reader = connect(path, reads_only=True)
        self._lock = threading.Lock()
        self._exchange: Exchange | None = None
        self._confirmed: Confirmed | None = None
        if central is not None:
            from nightloom.serving.store.exchange import Exchange

            self._exchange = Exchange(path, central)
            self._confirmed = Confirmed(path)

    @classmethod
    def open(cls, path: Path, url: str | None = None, *, ack: Ack = "local") -> Self:
        """Open the store, or make it.

        Args:
            path: of the SQLite file (`nightloom.runs.service_store.store_file`), named like the recommender; its folder is made.
            url: of PostgreSQL, where machines share. It need not answer now.
            ack: what a future waits for unless `submit` says otherwise: `local`, this machine's disk; `central`, PostgreSQL's.

        Raises:
            InputError: the file is no store or can not be written, or the address is none of PostgreSQL.
        """
        central = None
        if url is not None:
            from nightloom.serving.store.central import Central  # here, since SQLAlchemy is not needed without

            central = Central(url, path.stem, Marks(path))
        create(path)
        return cls(path, central, ack)

    def view(self, base: Path | None = None, through: Mapping[int, int] | None = None) -> View:
        """A reader for one champion: see `View`."""
        return View(self.path, base, through)

    @property
    def shared(self) -> bool:
        """Whether machines share it by PostgreSQL, which a write can wait for."""
        return self._confirmed is not None

    def submit(self, write: Write[Result], ack: Ack | None = None) -> Future[Result]:
        """Have something written, without waiting.

        Args:
            write: of `nightloom.serving.store.writes`.
            ack: see `open`; None: as said there. Where there is no PostgreSQL the disk is all that there is to wait for.

        Returns:
            The result, once it is durable (`asyncio.wrap_future` awaits it), or a `StoreError`.

        Raises:
            StoreBusy: the queue is full.
            StoreClosed: the store is closed.
        """
        done = self._writer.submit(write)
        central = (ack or self.ack) == "central"
        return self._confirmed.after(done, lambda: self._writer.last) if central and self._confirmed is not None else done

    def add_events(self, events: Sequence[Event]) -> Acknowledged:
        """Store events, each once by its id; returns when they are durable. Raises a `StoreError` where they are not."""
        return self.submit(AddEvents(events)).result()

    def delete_event(self, event_id: str) -> bool:
        """Delete an event; whether there is one of that id."""
        return self.submit(DeleteEvent(event_id)).result()

    def add_feedback(self, feedback: Sequence[Feedback]) -> Acknowledged:
        """Store feedback, each once by its id, and the events that it stands for."""
        return self.submit(AddFeedback(feedback)).result()

    def put_item(self, item_id: str, columns: Mapping[str, Any]) -> Item:
        """Say all that is known of an item."""
        return self.submit(PutItem(item_id, columns)).result()

    def patch_item(self, item_id: str, columns: Mapping[str, Any]) -> Item | None:
        """Change some columns of an item, one of the catalogue or one said here; None where it was deleted."""
        return self.submit(PatchItem(item_id, columns)).result()

    def delete_item(self, item_id: str) -> Item:
        """Take an item out of what is offered."""
        return self.submit(DeleteItem(item_id)).result()

    def forget(self, user_id: str) -> int:
        """Remove all rows of a user; how many there were."""
        return self.submit(Forget(user_id)).result()

    def item(self, item_id: str) -> Item | None:
        """What was said of an item; None where nothing was."""
        rows = self._read(f"SELECT {ITEM_COLUMNS} FROM items WHERE item_id = ?", (item_id,))
        return item_of(rows[0]) if rows else None

    def items(self, limit: int, cursor: str = "") -> ItemPage:
        """A page of the items of which something was said, deleted ones too; `cursor` is `next` of the page before."""
        rows = self._read(f"SELECT {ITEM_COLUMNS} FROM items WHERE item_id > ? ORDER BY item_id LIMIT ?", (cursor, limit + 1))
        found = [item_of(row) for row in rows[:limit]]
        return ItemPage(found, found[-1].item_id if len(rows) > limit else None)

    @property
    def waiting(self) -> int:
        """Rows that wait to be written now."""
        return self._writer.waiting

    @property
    def spool(self) -> int:
        """Rows that PostgreSQL does not have yet; 0 without one."""
        if self._exchange is None:
            return 0
        counts = [f"(SELECT count(*) FROM {table}, state WHERE {table}.writer = state.writer AND number > sent)" for table in TABLES]
        return int(self._read(f"SELECT {' + '.join(counts)}", ())[0][0])

    @property
    def central_error(self) -> str | None:
        """Why rows do not go to PostgreSQL now, as the process knows it that carries them; None where they do."""
        return None if self._exchange is None else self._exchange.error

    def close(self) -> None:
        """Write what waits, send it on where PostgreSQL answers, and close."""
        self._writer.close()
        if self._exchange is not None:
            self._exchange.close()
        if self._confirmed is not None:
            self._confirmed.close()
        with self._lock:
            self._reader.close()

    def _read(self, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._lock:
            rows: list[tuple[Any, ...]] = self._reader.execute(statement, values).fetchall()
            return rows
