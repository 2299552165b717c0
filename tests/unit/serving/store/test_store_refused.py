"""What PostgreSQL would not take is refused before it is written: one such row would stop the outbox for good."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nightloom.serving.store import Event, Feedback, Store, WriteRefused
from nightloom.serving.store.writes import LONGEST, AddEvents
from tests.postgres_server import postgres_server
from tests.waiting import until

REFUSED: list[Callable[[Store], object]] = [
    lambda store: store.add_events([Event("a\0b", "u", "i", "click", 1)]),
    lambda store: store.add_events([Event("e", "u" * (LONGEST + 1), "i", "click", 1)]),
    lambda store: store.add_events([Event("e", "u", "", "click", 1)]),
    lambda store: store.add_events([Event("e", "u", "i", "\ud800", 1)]),
    lambda store: store.add_events([Event("e", "u", "i", "click", 10**15)]),
    lambda store: store.add_events([Event("e", "u", "i", "click", 1, float("inf"))]),
    lambda store: store.add_events([Event("e", "u", "i", "click", 1, context={"a": "\udfff"})]),
    lambda store: store.add_feedback([Feedback("f", "click", "to\0ken", 1)]),
    lambda store: store.add_feedback([Feedback("f", "click", "t", 1, position=2**63)]),
    lambda store: store.add_feedback([Feedback("f", "click", "t", 1, user_id="\0", item_id="i", event="click")]),
    lambda store: store.put_item("i\0", {}),
    lambda store: store.put_item("i", {"price": float("nan")}),
    lambda store: store.patch_item("i", {"a": object()}),
    lambda store: store.delete_item("i" * 600),
    lambda store: store.forget("\0"),
]


@pytest.mark.parametrize("write", REFUSED)
def test_values_that_no_database_takes(tmp_path: Path, write: Callable[[Store], object]) -> None:
    store = Store.open(tmp_path / "x.db")
    with pytest.raises(WriteRefused):
        write(store)
    assert list(store.view().changes()) == []
    store.close()


def test_the_oddest_values_that_are_taken_reach_postgresql(tmp_path: Path) -> None:
    ids = ["'; DROP TABLE events; --", "%s {} :x", "日本語" * 100, "\x7f\x01", "e" * LONGEST, "\U0001f600" * LONGEST]
    with postgres_server() as server:
        store = Store.open(tmp_path / "odd.db", server.url)
        for one in ids:
            store.add_events([Event(one, one, one, one, 253_402_300_799_999, 1e308, {one: [one, "\0", None, 2**70]})])
            store.add_feedback([Feedback(one, one, one * 20, -1, one, one, 2**62, -(2**62), -0.0, one)])
            store.put_item(one, {one: "\0"})
        store.forget(ids[0])
        until(lambda: not store.spool)
        assert store.central_error is None
        assert store.spool == 0
        other = Store.open(tmp_path / "other" / "odd.db", server.url)
        until(lambda: len(other.items(100).items) >= len(ids))
        mine, others = store.view(), other.view()
        for one in ids:
            assert others.history(one, 9) == mine.history(one, 9)
            assert other.item(one) == store.item(one)
        assert len(others.history(ids[1], 9)) == 2
        store.close()
        other.close()


def test_a_refused_event_is_refused_before_it_waits() -> None:
    with pytest.raises(WriteRefused, match="512 characters"):
        AddEvents([Event("e" * 513, "u", "i", "click", 1)])
