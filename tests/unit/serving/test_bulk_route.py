"""Any number of events in one request: stored once, counted by what became of them, learned from."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from nightloom.serving.api import bulk, guard
from nightloom.serving.store import StoreBusy
from nightloom.serving.store.database import turn
from nightloom.serving.store.writer import Writer
from tests.service_app import Worker, event, ids
from tests.serving_bundle import START
from tests.waiting import until

KIND = {"content-type": "application/x-ndjson"}


def lines(*events: Any) -> bytes:
    return b"".join((one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n" for one in events)


def send(worker: Worker, content: Any, path: str = "/bulk/events", **headers: str) -> httpx.Response:
    return worker("POST", path, content=content, headers=KIND | headers)


def test_events_are_stored_once_counted_and_learned(worker: Worker) -> None:
    many = 3 * bulk.BATCH + 7
    events = [event(f"e{number}", f"u{number % 20}", f"i{number % 40}", at=START + number) for number in range(many)]
    before = worker.ask(user_id="u1", now=START + 9999)
    content = lines(*events) + b"\r\n" + lines(events[3], event("x", "u1", "unheard"), event("y", "u1", "i1", "love")).rstrip(b"\n")

    async def parts() -> AsyncIterator[bytes]:  # cut anywhere, as networks do
        for at in range(0, len(content), 777):
            yield content[at : at + 777]

    found = send(worker, parts())
    assert found.status_code == 200
    assert found.json() == {
        "received": many + 3,
        "stored": many + 2,
        "duplicates": 1,
        "refused": 0,
        "unknown_items": 1,
        "unknown_events": 1,
        "errors": [],
    }
    after = worker.ask(user_id="u1", now=START + 9999, k=150)
    assert after["items"][:10] != before["items"]
    assert not {"i1", "i21"} & set(ids(after))
    again = send(worker, content).json()
    assert (again["stored"], again["duplicates"]) == (0, many + 3)


def test_lines_that_are_refused_are_named_and_the_others_stored(worker: Worker) -> None:
    content = lines(
        event("e1", "u1", "i1"), b"", b"{", event("e2", "u1", "i2") | {"value": "5"}, event("", "u1", "i1"), event("e3", "u1", "i3")
    )
    found = send(worker, content)
    assert found.status_code == 200
    said = found.json()
    assert (said["received"], said["stored"], said["refused"]) == (5, 2, 3)
    assert [one["field"] for one in said["errors"]] == ["3", "4.value", "5.event_id"]
    assert "JSON" in said["errors"][0]["message"]
    assert len(send(worker, lines(*[b"{}"] * 50, event("e1", "u1", "i1"))).json()["errors"]) == bulk.MOST_TOLD


@pytest.mark.parametrize(("content", "received"), [(b"", 0), (b"\n \n", 0), (b"[]\nnull\n\xff", 3)])
def test_where_no_line_is_an_event_nothing_is_stored(worker: Worker, content: bytes, received: int) -> None:
    said = send(worker, content).json()
    assert (said["received"], said["refused"], said["stored"], len(said["errors"])) == (received, received, 0, received)


@pytest.mark.parametrize(
    ("content", "headers", "path", "status", "said"),
    [
        (b"{}", {"content-type": "application/json"}, "/bulk/events", 415, "application/x-ndjson"),
        (b"x" * (bulk.LONGEST_LINE + 1), {}, "/bulk/events", 413, "Line 1"),
        (b"{}", {}, "/bulk/events?ack=never", 422, "ack"),
        (lines(event("e1", "u1", "i1")), {}, "/bulk/events?ack=central", 409, "ack"),
    ],
    ids=str,
)
def test_what_is_no_such_request_is_refused(
    worker: Worker, content: bytes, headers: dict[str, str], path: str, status: int, said: str
) -> None:
    found = send(worker, content, path, **headers)
    assert found.status_code == status
    assert found.headers["content-type"] == "application/problem+json"
    assert said in found.json()["detail"]


def test_a_body_may_be_larger_than_others(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BIGGEST_BODY", 10_000)
    content = lines(*[event(f"e{number}", "u1", "i1", at=START + number) for number in range(300)])
    assert len(content) > 2 * guard.BIGGEST_BODY
    assert send(worker, content).json()["stored"] == 300
    assert worker("POST", "/events", content=content, headers={"content-type": "application/json"}).status_code == 413


def test_a_full_queue_is_waited_for(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    submit, refusals = worker.service.store.submit, iter([True, True, False, True, False])

    def busy(*arguments: Any) -> Any:
        if next(refusals):
            raise StoreBusy("full")
        return submit(*arguments)

    monkeypatch.setattr(worker.service.store, "submit", busy)
    content = lines(*[event(f"e{number}", "u1", "i1", at=START + number) for number in range(bulk.BATCH + 1)])
    assert send(worker, content).json()["stored"] == bulk.BATCH + 1
    monkeypatch.setattr(bulk, "BUSY_SECONDS", 0)
    monkeypatch.setattr(worker.service.store, "submit", lambda *_: (_ for _ in ()).throw(StoreBusy("full")))
    refused = send(worker, content)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")


def test_a_slow_disk_writes_several_parts_at_once_and_no_more_wait(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    store, groups, taken, seen, parts = worker.service.store, list[int](), list[int](), list[int](), 3 * bulk.AHEAD
    locked = threading.Event()
    submit, write = store.submit, Writer._transact

    def counted(*arguments: Any) -> Any:
        taken.append(1)
        return submit(*arguments)

    def noted(writer: Writer, jobs: list[Any]) -> list[Any]:
        groups.append(len(jobs))
        return write(writer, jobs)

    def slow() -> None:
        with turn(store.path):
            locked.set()
            until(lambda: len(taken) >= bulk.AHEAD, 0.001)
            time.sleep(0.05)  # for more, which must not come
            seen.append(len(taken))

    monkeypatch.setattr(Writer, "_transact", noted)
    monkeypatch.setattr(store, "submit", counted)
    disk = threading.Thread(target=slow)
    disk.start()
    assert locked.wait(60)
    content = lines(*[event(f"e{number}", f"u{number}", "i1", at=START + number) for number in range(parts * bulk.BATCH)])
    assert send(worker, content).json()["stored"] == parts * bulk.BATCH
    disk.join()
    assert seen == [bulk.AHEAD]
    assert sum(groups) == len(taken) == parts
    assert max(groups) >= bulk.AHEAD - 1, "what waited came with one commit"


def test_where_an_answer_waits_for(worker: Worker) -> None:
    said = {"events": [event("e1", "u1", "i1")]}
    assert worker("POST", "/events", said | {"ack": "local"}).status_code == 200
    refused = worker("POST", "/events", said | {"ack": "central"})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (409, "ack")
    assert worker("POST", "/events", said | {"ack": "both"}).status_code == 422
