from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path

import pytest

from nightloom.core.errors import InputError
from nightloom.serving.store import (
    Acknowledged,
    DeletedEvent,
    Event,
    Feedback,
    Forgotten,
    Store,
    StoreBusy,
    StoreClosed,
    WriteRefused,
)
from nightloom.serving.store.database import create, turn
from nightloom.serving.store.view import CHUNK
from nightloom.serving.store.writer import Writer
from nightloom.serving.store.writes import AddEvents, PutItem


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "store" / "shop.db")
    yield opened
    opened.close()


def event(event_id: str, user: str = "u", item: str = "i", at: int = 1_700_000_000_000, name: str = "click") -> Event:
    return Event(event_id, user, item, name, at)


def test_an_event_counts_once_and_is_told_once(store: Store) -> None:
    view = store.view()
    first = Event("e1", "u", "i", "rating", 5, 3.5, {"page": "home"})
    assert store.add_events([first, event("e2"), first]) == Acknowledged(2, 1)
    assert list(view.changes()) == [first, event("e2")]
    assert store.add_events([first]) == Acknowledged(0, 1)
    assert list(view.changes()) == []
    assert view.history("u", 10) == [first, event("e2")]
    assert view.history("nobody", 10) == []


def test_a_history_is_the_latest_by_time_whatever_the_order_of_arrival(store: Store) -> None:
    store.add_events([event("late", at=30), event("early", at=10), event("middle", at=20), event("other", user="v", at=40)])
    assert [one.event_id for one in store.view().history("u", 2)] == ["middle", "late"]


def test_a_deleted_event_is_taken_back_once(store: Store) -> None:
    view = store.view()
    store.add_events([event("e1"), event("e2")])
    list(view.changes())
    assert store.delete_event("e1")
    assert store.delete_event("e1")
    assert not store.delete_event("never")
    assert list(view.changes()) == [DeletedEvent(event("e1"))]
    assert [one.event_id for one in view.history("u", 10)] == ["e2"]
    assert store.add_events([event("e1")]) == Acknowledged(0, 1), "sent again it stays deleted"
    assert list(store.view().changes()) == [event("e2")], "who never knew of it is told nothing"


def test_items_are_put_patched_and_deleted(store: Store) -> None:
    view = store.view()
    made = store.put_item("a", {"title": "Heat", "price": 3, "year": None})
    assert (made.columns, made.whole, made.version) == ({"title": "Heat", "price": 3}, True, 1)
    changed = store.patch_item("a", {"price": None, "tags": ["x", "y"]})
    assert changed is not None
    assert (changed.columns, changed.version) == ({"title": "Heat", "tags": ["x", "y"]}, 2)
    over = store.patch_item("of the catalogue", {"price": None})
    assert over is not None
    assert (over.columns, over.whole) == ({"price": None}, False), "over the catalogue None takes a column away"
    gone = store.delete_item("a")
    assert (gone.deleted, gone.columns) == (True, {})
    assert store.delete_item("a") == gone
    assert store.patch_item("a", {"price": 1}) is None
    assert list(view.changes()) == [over, gone], "of an item the latest counts"
    assert store.put_item("a", {"title": "Again"}).version == 4
    assert store.item("b") is None


def test_pages_of_items_and_of_a_users_events(store: Store) -> None:
    for number in range(5):
        store.put_item(f"i{number}", {})
    first = store.items(2)
    assert [item.item_id for item in first.items] == ["i0", "i1"]
    assert first.next is not None
    second = store.items(3, first.next)
    assert ([item.item_id for item in second.items], second.next) == (["i2", "i3", "i4"], None)
    store.add_events([event(f"e{number}", at=number // 2) for number in range(7)])
    view, found, cursor = store.view(), list[str](), None
    while True:
        page = view.user("u", 2, cursor)
        found += [one.event_id for one in page.events]
        if (cursor := page.next) is None:
            break
    assert found == [f"e{number}" for number in reversed(range(7))]
    with pytest.raises(InputError, match="cursor: 'x'"):
        view.user("u", 2, "x")


def test_feedback_is_kept_and_is_an_event_where_it_says_so(store: Store) -> None:
    view = store.view()
    shown = Feedback("f1", "impression", "token", 5, "u", "i", 1, 10)
    click = Feedback("f2", "click", "token", 6, "u", "i", 1, event="click")
    assert store.add_feedback([shown, click, click]) == Acknowledged(2, 1)
    assert list(view.changes()) == [shown, click, event("feedback:f2", at=6)]
    assert view.history("u", 10) == [event("feedback:f2", at=6)]


def test_of_a_forgotten_user_the_id_alone_is_left(store: Store) -> None:
    view = store.view()
    store.add_events([event("secret-event", user="v", item="secret-item"), event("e2")])
    store.add_feedback([Feedback("secret-feedback", "click", "secret-token", 1, "v", "i")])
    list(view.changes())
    assert store.forget("v") == 2
    (told,) = view.changes()
    assert isinstance(told, Forgotten)
    assert told.user_id == "v"
    assert view.history("v", 10) == []
    store.add_events([event("e3", user="v")])
    assert view.history("v", 10) == [event("e3", user="v")], "what comes after counts again"
    view.close()
    store.close()
    assert b"secret" not in b"".join(path.read_bytes() for path in store.path.parent.iterdir())


def test_changes_come_whole_and_in_order_beyond_a_chunk(store: Store) -> None:
    view, many = store.view(), 2 * CHUNK + 7
    store.add_events([event(f"e{number}") for number in range(CHUNK)])
    store.put_item("between", {})
    store.add_events([event(f"e{number}") for number in range(CHUNK, many)])
    told = list(view.changes())
    assert [one.event_id for one in told if isinstance(one, Event)] == [f"e{number}" for number in range(many)]
    assert told[CHUNK] == store.item("between")


def test_changes_that_were_not_taken_come_again(store: Store) -> None:
    view = store.view()
    store.add_events([event("e1"), event("e2")])
    for change in view.changes():
        assert change == event("e1")
        break
    assert list(view.changes()) == [event("e2")]


def test_a_view_begins_where_the_champion_ends(store: Store) -> None:
    store.add_events([event("e1"), event("e2")])
    with closing(sqlite3.connect(store.path)) as connection:
        through = dict(connection.execute("SELECT writer, number FROM writers").fetchall())
    store.add_events([event("e3")])
    assert list(store.view(through=through).changes()) == [event("e3")]
    store.add_events([event("e4")])
    view = store.view(through={writer: number + 1 for writer, number in through.items()})
    assert list(view.changes()) == [event("e4")]


def test_what_waits_is_committed_together_and_one_bad_value_harms_none(store: Store) -> None:
    with turn(store.path):  # the writer waits for its turn
        first = store.submit(AddEvents([event("first")]))
        good = [store.submit(AddEvents([event(f"e{number}")])) for number in range(20)]
        bad = store.submit(AddEvents([event("bad", name="\ud800")]))
        broken = store.submit(PutItem("i", {"price": float("nan")}))
    wait([first, *good, bad, broken])
    assert {future.result() for future in good} == {Acknowledged(1, 0)}
    for refused in (bad, broken):
        with pytest.raises(WriteRefused, match="can not be stored"):
            refused.result()
    assert len(list(store.view().changes())) == 21


def test_a_full_queue_is_told_and_a_large_write_passes_an_empty_one(tmp_path: Path) -> None:
    create(tmp_path / "q.db")
    writer = Writer(tmp_path / "q.db", queue_rows=10)
    large = writer.submit(AddEvents([event(f"l{number}") for number in range(50)]))
    assert large.result(10) == Acknowledged(50, 0)
    with turn(tmp_path / "q.db"):
        first = writer.submit(AddEvents([event("first")]))
        while writer.waiting:  # until the writer has taken it, and waits for its turn
            time.sleep(0.001)
        taken = [writer.submit(AddEvents([event(f"e{number}")])) for number in range(10)]
        with pytest.raises(StoreBusy, match="10 rows wait"):
            writer.submit(AddEvents([event("too many")]))
    assert all(future.result(10).new for future in (first, *taken))
    assert writer.waiting == 0
    writer.close()
    with pytest.raises(StoreClosed):
        writer.submit(AddEvents([event("late")]))


def test_closing_writes_what_waits(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "c.db")
    futures = [store.submit(AddEvents([event(f"e{number}")])) for number in range(500)]
    store.close()
    assert all(future.result(0) == Acknowledged(1, 0) for future in futures)
    again = Store.open(tmp_path / "c.db")
    assert len(again.view().history("u", 1000)) == 500
    again.close()


def test_many_threads_one_of_each(store: Store) -> None:
    view, barrier = store.view(), threading.Barrier(16)

    def send(_: int) -> int:
        barrier.wait()
        return sum(store.add_events([event(f"e{number}")]).new for number in range(40))

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(send, range(16))) == 40, "all send the same, and each counts once"
    assert len(list(view.changes())) == 40


def test_files_that_are_no_store_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("user_id,item_id\n" * 200)
    with pytest.raises(InputError, match="can not be used as the service's store"):
        Store.open(tmp_path / "text.db")
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE t (a)")
    with pytest.raises(InputError, match="no store of the service"):
        Store.open(tmp_path / "other.db")
    Store.open(tmp_path / "new.db").close()
    with closing(sqlite3.connect(tmp_path / "new.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(InputError, match="newer Nightloom"):
        Store.open(tmp_path / "new.db")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="Name a folder"):
        Store.open(tmp_path / "file" / "x.db")


def test_it_is_light(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom nightloom.serving.store import Store, Event\n"
        f"store = Store.open(Path({str(tmp_path / 'l.db')!r}))\nstore.add_events([Event('e', 'u', 'i', 'click', 1)])\n"
        "list(store.view().changes())\nstore.close()\nprint(*sys.modules)"
    )
    Store.open(tmp_path / "l.db").close()  # only a new file needs SQLAlchemy
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    found = {name.partition(".")[0] for name in said.split()}
    assert not {"torch", "pandas", "pyarrow", "duckdb", "sqlalchemy", "alembic", "psycopg2"} & found
