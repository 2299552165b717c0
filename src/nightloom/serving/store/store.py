"""The store of one machine, as one of its processes opens it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from nightloom.serving.store.database import connect, create
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

Result = TypeVar("Result")


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

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer = Writer(path)
        self._reader = connect(path, reads_only=True)
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the store, or make it.

        Args:
            path: of the SQLite file, `mlruns/store/<name>.db` by default; its folder is made.

        Raises:
            InputError: the file is no store, or can not be written.
        """
        create(path)
        return cls(path)

    def view(self, base: Path | None = None, through: Mapping[int, int] | None = None) -> View:
        """A reader for one champion: see `View`."""
        return View(self.path, base, through)

    def submit(self, write: Write[Result]) -> Future[Result]:
        """Have something written, without waiting.

        Args:
            write: of `nightloom.serving.store.writes`.

        Returns:
            The result, once it is on the disk (`asyncio.wrap_future` awaits it), or a `StoreError`.

        Raises:
            StoreBusy: the queue is full.
            StoreClosed: the store is closed.
        """
        return self._writer.submit(write)

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

    def close(self) -> None:
        """Write what waits, and close."""
        self._writer.close()
        with self._lock:
            self._reader.close()

    def _read(self, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._lock:
            rows: list[tuple[Any, ...]] = self._reader.execute(statement, values).fetchall()
            return rows
