"""Votes on reasons out of the service's store, as a night counts them: SQLite and a real PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest

from nightloom.core.reason_votes import count_votes
from nightloom.data.sources.service_store import read_votes
from nightloom.runs.service_store import EVENTS_URL, store_file
from nightloom.serving.store import Feedback, Store
from tests.postgres_server import postgres_server
from tests.waiting import until

GIVEN = (
    ("helpful:events", "t1", "i1"),
    ("not_helpful:events", "t1", "i1"),  # the same person thinks again
    ("helpful:events", "t1", "i2"),
    ("helpful:events", "t2", "i1"),
    ("not_helpful:newcomer", "t3", "i1"),
    ("click", "t1", "i1"),
    ("helpful:horoscope", "t1", "i1"),  # of a Nightloom that knows more kinds
)
COUNTED = {"events": {"helpful": 2, "not_helpful": 1}, "newcomer": {"helpful": 0, "not_helpful": 1}}


def fill(store: Store) -> None:
    for number, (kind, token, item) in enumerate(GIVEN):
        store.add_feedback([Feedback(f"f{number}", kind, token, 1_700_000_000_000, None, item)])


def test_the_last_vote_on_a_reason_counts() -> None:
    assert count_votes(GIVEN) == COUNTED
    assert count_votes([]) == {}


def test_out_of_a_file(tmp_path: Path) -> None:
    assert read_votes("own", "shop", tmp_path) == {}
    store = Store.open(store_file(tmp_path, "shop"))
    fill(store)
    store.close()
    assert read_votes("own", "shop", tmp_path) == COUNTED
    assert read_votes("none", "shop", tmp_path) == {}


def test_out_of_postgresql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with postgres_server() as server:
        monkeypatch.setenv(EVENTS_URL, server.url)
        assert read_votes("own", "shop", tmp_path) == {}
        store = Store.open(store_file(tmp_path, "shop"), server.url)
        fill(store)
        until(lambda: not store.spool)
        store.close()
        assert read_votes("own", "shop", tmp_path / "another machine") == COUNTED
