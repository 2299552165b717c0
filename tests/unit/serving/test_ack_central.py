"""An answer that waits for PostgreSQL, where machines share one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from nightloom.serving.store import confirmed
from tests.postgres_server import PostgresServer, postgres_server
from tests.service_app import Worker, event


def in_postgresql(server: PostgresServer) -> set[str]:
    """Ids of the events there."""
    engine = sa.create_engine(server.url)
    try:
        with engine.connect() as connection:
            return set(connection.scalars(sa.text("SELECT event_id FROM nightloom_shop.events")))
    finally:
        engine.dispose()


def test_an_answer_waits_for_postgresql_where_it_is_asked_to(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with postgres_server() as server, Worker(home, url=server.url) as worker:
        said = {"events": [event("e1", "u1", "i1")], "ack": "central"}
        assert worker("POST", "/events", said).json()["stored"] == 1
        assert in_postgresql(server) == {"e1"}
        lines = "\n".join(json.dumps(event(f"b{number}", "u2", "i2")) for number in range(3))
        headers = {"content-type": "application/x-ndjson"}
        assert worker("POST", "/bulk/events?ack=central", content=lines, headers=headers).json()["stored"] == 3
        assert in_postgresql(server) == {"e1", "b0", "b1", "b2"}
        token = worker.ask(user_id="u1", k=1)["token"]
        feedback = {"feedback_id": "f1", "token": token, "kind": "impression", "timestamp": 1_700_000_000, "ack": "central"}
        assert worker("POST", "/feedback", feedback).json()["stored"] == 1
        monkeypatch.setattr(confirmed, "WAIT_SECONDS", 0.3)
        server.stop()
        try:
            late = worker("POST", "/events", {"events": [event("late", "u1", "i3")], "ack": "central"})
            assert (late.status_code, late.headers["retry-after"]) == (503, "1")
            assert worker.tell(event("late", "u1", "i3"))["duplicates"] == 1, "it is on the disk here"
            assert worker.tell(event("here", "u1", "i4"))["stored"] == 1
        finally:
            server.start()
