"""Histories on top of the snapshot that a champion was trained on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from nightloom.core.errors import InputError
from nightloom.data.tables.schema import Tables
from nightloom.data.tables.snapshot import write_snapshot
from nightloom.serving.store import Event, Store, base


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "shop.db")
    yield opened
    opened.close()


def snapshot(home: Path, rows: list[tuple[str, str, int, str]], values: list[float] | None = None, *, order: bool = False) -> Path:
    events = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "event"])
    if order:
        events = events.rename(columns={"timestamp": "order"})
    else:
        events["timestamp"] = pd.to_datetime(events["timestamp"], unit="ms", utc=True).dt.as_unit("ms")
    if values is not None:
        events["value"] = values
    return write_snapshot(Tables(events), home, {}).path


def test_the_snapshots_events_come_before_those_of_the_day(store: Store, tmp_path: Path) -> None:
    rows = [("u", "b", 20, "view"), ("v", "a", 5, "view"), ("u", "a", 10, "buy"), ("u", "007", 20, "view")]
    view = store.view(snapshot(tmp_path / "s", rows, [1.5, 2.0, float("nan"), 4.0]))
    store.add_events([Event("e1", "u", "c", "click", 30), Event("e2", "u", "early", "click", 15)])
    expected = [
        Event("", "u", "a", "buy", 10),
        Event("e2", "u", "early", "click", 15),
        Event("", "u", "b", "view", 20, 1.5),
        Event("", "u", "007", "view", 20, 4.0),
        Event("e1", "u", "c", "click", 30),
    ]
    assert view.history("u", 10) == expected
    assert view.history("u", 2) == expected[-2:]
    assert view.history("w", 10) == []
    found, cursor = list[Event](), None
    while True:
        page = view.user("u", 2, cursor)
        found += page.events
        if (cursor := page.next) is None:
            break
    assert found == expected[::-1]


def test_what_the_snapshot_took_from_the_store_is_there_once_and_goes_when_deleted(store: Store, tmp_path: Path) -> None:
    store.add_events([Event("e1", "u", "a", "click", 10), Event("e2", "u", "b", "click", 20)])
    view = store.view(snapshot(tmp_path / "s", [("u", "a", 10, "click"), ("u", "b", 20, "click"), ("u", "c", 5, "click")]))
    assert [one.item_id for one in view.history("u", 10)] == ["c", "a", "b"]
    store.delete_event("e1")
    assert [one.item_id for one in view.history("u", 10)] == ["c", "b"]
    store.forget("u")
    assert view.history("u", 10) == []


def test_events_without_times_come_first_in_their_order(store: Store, tmp_path: Path) -> None:
    rows = [("u", "second", 9_000_000_000_000_000, "view"), ("u", "first", 3, "view"), ("u", "day", 4, "click")]
    view = store.view(snapshot(tmp_path / "s", rows, order=True))
    store.add_events([Event("e1", "u", "day", "click", 1_700_000_000_000)])
    assert [(one.item_id, one.event_id) for one in view.history("u", 10)] == [("first", ""), ("second", ""), ("day", "e1")]


def test_many_users_are_read_in_parts(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(f"u{number % 50}", f"i{number % 7}", number, "view") for number in range(1_000)]
    place = snapshot(tmp_path / "s", rows)
    monkeypatch.setattr(base, "PART", 90)
    base.make(place / "events.parquet", tmp_path / f"shop-base-{json.loads((place / 'snapshot.json').read_text())['hash'][:16]}.db")
    view = store.view(place)
    for user in range(50):
        found = view.history(f"u{user}", 1_000)
        assert [(one.item_id, one.timestamp) for one in found] == [(f"i{n % 7}", n) for n in range(user, 1_000, 50)]


def test_a_view_begins_where_its_snapshot_ends(store: Store, tmp_path: Path) -> None:
    store.add_events([Event("e1", "u", "a", "click", 10)])
    place = snapshot(tmp_path / "s", [("u", "a", 10, "click")])
    said = json.loads((place / "snapshot.json").read_text())
    (writer,) = store._read("SELECT writer FROM state", ())[0]
    said["source"] = {"store_rows": {str(writer): 1}}
    (place / "snapshot.json").write_text(json.dumps(said))
    view = store.view(place)
    assert list(view.changes()) == []
    store.add_events([Event("e2", "u", "a", "click", 20)])
    assert [change.event_id for change in view.changes() if isinstance(change, Event)] == ["e2"]


def test_the_file_is_made_once_and_old_ones_go(store: Store, tmp_path: Path) -> None:
    places = [snapshot(tmp_path / "s", [("u", f"a{number}", 10, "click")]) for number in range(5)]
    with ThreadPoolExecutor(4) as pool:
        views = list(pool.map(store.view, [places[0]] * 4))
    made = list(tmp_path.glob("shop-base-*.db"))
    assert len(made) == 1
    written = made[0].read_bytes()
    store.view(places[0]).close()
    assert made[0].read_bytes() == written
    for place in places[1:]:
        store.view(place).close()
    assert len(list(tmp_path.glob("shop-base-*.db"))) == base.KEPT
    assert views[0].history("u", 1)[0].item_id == "a0", "who has it open reads on"
    assert not list(tmp_path.glob(".partial-*"))


def test_what_is_no_snapshot_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a snapshot"):
        store.view(tmp_path)
    place = snapshot(tmp_path / "s", [("u", "a", 10, "click")])
    (place / "events.parquet").write_bytes(b"cut short")
    with pytest.raises(InputError, match="can not be made ready"):
        store.view(place)
    assert not list(tmp_path.glob("shop-base-*.db"))


def test_a_worker_holds_neither_events_nor_duckdb(store: Store, tmp_path: Path) -> None:
    place = snapshot(tmp_path / "s", [(f"u{number}", "a", 10, "click") for number in range(100)])
    code = (
        "import sys\nfrom pathlib import Path\nfrom nightloom.serving.store import Store\n"
        f"store = Store.open(Path({str(store.path)!r}))\nview = store.view(Path({str(place)!r}))\n"
        "assert view.history('u7', 5)[0].item_id == 'a'\nstore.close()\nprint(*sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"duckdb", "pandas", "pyarrow", "sqlalchemy"} & {name.partition(".")[0] for name in said.split()}
