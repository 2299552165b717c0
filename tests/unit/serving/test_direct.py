"""Recommendations that pass the framework by are those that it would give, and so are refusals."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import httpx
import pytest

from nightloom.serving.api import direct
from nightloom.serving.reasons import explain
from tests.service_app import Worker
from tests.serving_bundle import START

GOOD: list[dict[str, Any]] = [
    {"user_id": "u1", "now": START + 60},
    {"user_id": "nobody", "k": 3.0, "now": START + 60},
    {"history": ["i1", "i2"], "times": [START, START + 5], "now": START + 60, "k": 5, "explain": True},
    {"history": [], "now": START, "filter": {"not": {"in": {"title": ["x"]}}}, "debug": True},
    {"user_id": "u1", "rules": [{"name": "mine", "pin": ["i3"], "from": "2020-01-01T00:00:00Z"}], "now": START},
]
BAD: list[bytes] = [
    b"",
    b"{",
    b"[]",
    b'"text"',
    b"\xff",
    b'{"user_id": "u1", "k": "5"}',
    b'{"user_id": "u1", "k": true}',
    b'{"user_id": "u1", "k": NaN}',
    b'{"user_id": "u1", "k": 1e400}',
    b'{"user_id": "u1", "now": false}',
    b'{"user_id": "u1", "unknown": 1}',
    b'{"user_id": "\\ud800"}',
    b'{"user_id": "u1", "page": "forged"}',
    b'{"user_id": "u1", "times": [1]}',
    b'{"history": ["i1"], "events": ["nonsense"]}',
    b'{"filter": {"in": {"title": [1e999]}}}',
]


def both(worker: Worker, content: bytes, headers: dict[str, str]) -> list[httpx.Response]:
    """The answers of the service, and of the framework alone behind the same guard."""
    found = [worker("POST", "/recommend", content=content, headers=headers)]
    own, worker.guard.app = worker.guard.app, worker.app
    try:
        return [*found, worker("POST", "/recommend", content=content, headers=headers)]
    finally:
        worker.guard.app = own


@pytest.mark.parametrize("said", GOOD)
@pytest.mark.parametrize("language", ["zh", "en"])
def test_good_requests(worker: Worker, said: dict[str, Any], language: str) -> None:
    mine, theirs = both(worker, json.dumps(said).encode(), {"content-type": "application/json", "accept-language": language})
    assert mine.status_code == theirs.status_code == 200
    assert [{**one.json(), "token": 0, "next": 0} for one in (mine, theirs)] == [{**theirs.json(), "token": 0, "next": 0}] * 2
    assert {**mine.headers, "x-request-id": 0, "content-length": 0} == {**theirs.headers, "x-request-id": 0, "content-length": 0}
    text = worker("GET", "/metrics").text
    assert 'nightloom_requests_total{method="POST",path="/recommend",status="200"} 2' in text
    assert "nightloom_recommendations_total 2" in text


@pytest.mark.parametrize("content", BAD)
def test_bad_requests(worker: Worker, content: bytes) -> None:
    mine, theirs = both(worker, content, {"content-type": "application/json", "x-request-id": "r1"})
    assert mine.status_code == theirs.status_code >= 400
    assert mine.json() == theirs.json()
    assert {**mine.headers} == {**theirs.headers}
    assert "nightloom_recommendations_total" not in worker("GET", "/metrics").text


@pytest.mark.parametrize("kind", ["text/plain", "application/json; charset=utf-8", "application/vnd.shop+json", ""])
def test_other_kinds_of_content(worker: Worker, kind: str) -> None:
    mine, theirs = both(worker, b'{"user_id": "u1"}', {"content-type": kind})
    assert mine.status_code == theirs.status_code


def test_good_requests_do_pass_the_framework_by(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: Any) -> None:
        raise AssertionError("the framework was asked")

    monkeypatch.setattr(worker.guard.app, "app", type("App", (), {"__call__": never, "state": worker.app.state})())
    assert worker.ask(user_id="u1")["items"]


def test_a_client_that_leaves_before_its_body_came_is_not_answered(worker: Worker) -> None:
    heard: list[Any] = []

    async def gone() -> None:
        messages = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]

        async def receive() -> Any:
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            heard.append(message)

        scope = {"type": "http", "method": "POST", "path": "/recommend", "headers": [(b"content-type", direct.JSON)]}
        scope |= {"query_string": b"", "http_version": "1.1", "scheme": "http", "server": ("service", 80), "client": ("here", 1)}
        await worker.guard(scope, receive, send)

    asyncio.run(gone())
    assert not [one for one in heard if one.get("status") == 200]


def test_reasons_are_found_in_another_thread(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    real, threads = explain.reasons, list[str]()

    def watched(*given: Any, **more: Any) -> Any:
        threads.append(threading.current_thread().name)
        return real(*given, **more)

    monkeypatch.setattr(explain, "reasons", watched)
    assert worker.ask(user_id="u1", explain=True)["items"][0]["reason"]["text"]
    assert threads
    assert threading.current_thread().name not in threads
