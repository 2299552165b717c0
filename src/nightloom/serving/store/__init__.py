"""What happens by day, kept where the night finds it: one SQLite file a machine, and PostgreSQL behind it where machines share.

    store = Store.open(Path("mlruns/store/movies.db"))
    view = store.view(base=Path("mlruns/snapshots/movies/<hash>"))   # the snapshot that the champion was trained on
    store.add_events([Event("e1", "u1", "i1", "click", 1700000000000)])   # returns when it is on the disk
    for change in view.changes(): ...   # what is new since the last call, from every process and machine
    view.history("u1", 200)

`writer` commits in groups, `view` reads, `exchange` carries rows to PostgreSQL and back. Needs numpy and the standard library alone;
SQLAlchemy and alembic where PostgreSQL is used or a file is made, DuckDB in a process of its own where a snapshot is first opened.
"""

from nightloom.serving.store.errors import CentralUnavailable, StoreBusy, StoreClosed, StoreError, StoreFull, WriteRefused
from nightloom.serving.store.rows import (
    FEEDBACK_EVENTS,
    Acknowledged,
    Change,
    DeletedEvent,
    Event,
    Feedback,
    Forgotten,
    Item,
)
from nightloom.serving.store.store import Ack, Store
from nightloom.serving.store.view import View

__all__ = [
    "FEEDBACK_EVENTS",
    "Ack",
    "Acknowledged",
    "CentralUnavailable",
    "Change",
    "DeletedEvent",
    "Event",
    "Feedback",
    "Forgotten",
    "Item",
    "Store",
    "StoreBusy",
    "StoreClosed",
    "StoreError",
    "StoreFull",
    "View",
    "WriteRefused",
]
