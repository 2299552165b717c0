"""Events and feedback: stored once, and what the next answer has learned from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nightloom.serving.store import Feedback
from nightloom.serving.tokens import Signer
from tests.service_app import Worker, event, ids
from tests.serving_bundle import START


def test_every_worker_has_learned_from_an_event_that_was_acknowledged(home: Path) -> None:
    with Worker(home) as one, Worker(home) as other:
        for number in range(60):
            writer, reader = (one, other) if number % 2 else (other, one)
            item = ids(reader.ask(user_id="u3", k=1))[0]
            writer.tell(event(f"e{number}", "u3", item, at=START + number))
            answers = [worker.ask(user_id="u3", k=20, now=START + 100) for worker in (reader, writer)]
            assert item not in ids(answers[0])
            assert answers[0]["items"] == answers[1]["items"]


def test_a_worker_that_starts_later_answers_alike(home: Path) -> None:
    with Worker(home) as worker:
        events = [event(f"e{n}", f"u{n % 4}", f"i{n % 9}", ("view", "buy", "return")[n % 3], START + n // 2) for n in range(40)]
        worker.tell(*events)
        worker("DELETE", "/events/e3")
        worker("PUT", "/items/fresh", {"title": "Fresh", "genres": "red"})
        worker.tell(event("last", "u1", "fresh", at=START + 50))
        wanted = [worker.ask(user_id=f"u{user}", k=30, now=START + 100)["items"] for user in range(6)]
    with Worker(home) as again:
        for user, items in enumerate(wanted):
            found = again.ask(user_id=f"u{user}", k=30, now=START + 100)["items"]
            assert [one["item_id"] for one in found] == [one["item_id"] for one in items]
            assert [one["score"] for one in found] == pytest.approx([one["score"] for one in items], abs=1e-4)


def test_an_event_is_stored_once(worker: Worker) -> None:
    first = worker.tell(event("e1", "u1", "i1"), event("e2", "u1", "what"))
    assert first == {"stored": 2, "duplicates": 0, "unknown_items": 1, "unknown_events": 0}
    assert worker.tell(event("e1", "u1", "i1"), event("e3", "u1", "i1", "love"))["duplicates"] == 1
    page = worker("GET", "/users/u1", params={"limit": 3}).json()
    assert [one["event_id"] for one in page["events"]] == ["e3", "e2", "e1"]
    rest = worker("GET", "/users/u1", params={"limit": 200, "cursor": page["next"]}).json()
    assert {one["event_id"] for one in rest["events"]} == {None}, "those of the snapshot"
    assert worker("GET", "/users/u1", params={"cursor": "what"}).json()["errors"][0]["field"] == "cursor"


def test_a_deleted_event_no_longer_counts(worker: Worker) -> None:
    before = worker.ask(user_id="u5", k=50, now=START + 100)["items"]
    item = before[0]["item_id"]
    worker.tell(event("e1", "u5", item), event("e2", "u5", item, at=START + 20))
    assert worker.ask(user_id="u5", k=50, now=START + 100)["items"] != before
    for event_id in ("e1", "e2"):
        assert worker("DELETE", f"/events/{event_id}").status_code == 200
    after = worker.ask(user_id="u5", k=50, now=START + 100)["items"]
    assert [one["score"] for one in after] == pytest.approx([one["score"] for one in before], abs=1e-4)
    assert worker("DELETE", "/events/never").status_code == 404


def test_times_are_seconds_or_text(worker: Worker) -> None:
    worker.tell(
        {**event("e1", "t", "i1"), "timestamp": "2026-11-30T12:00:00+01:00"}, {**event("e2", "t", "i1"), "timestamp": 1796036400.25}
    )
    lines = worker("GET", "/users/t").json()["events"]
    assert [one["timestamp"] for one in lines] == [1796036400.25, 1796036400.0]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"timestamp": "soon"}, "events.0.timestamp"),
        ({"timestamp": "2026-02-29T00:00:00Z"}, "events.0.timestamp"),
        ({"timestamp": "2026-11-30T12:00:00"}, "events.0.timestamp"),
        ({"timestamp": True}, "events.0.timestamp"),
        ({"timestamp": -1}, "events.0.timestamp"),
        ({"timestamp": 1e15}, "events.0.timestamp"),
        ({"value": "5"}, "events.0.value"),
        ({"item_id": 5}, "events.0.item_id"),
        ({"event_id": "x" * 513}, "events.0.event_id"),
        ({"colour": 1}, "events.0.colour"),
    ],
    ids=str,
)
def test_bad_events_are_refused_by_field(worker: Worker, change: dict[str, Any], field: str) -> None:
    found = worker("POST", "/events", {"events": [event("e1", "u1", "i1") | change]})
    assert (found.status_code, [one["field"] for one in found.json()["errors"]]) == (422, [field])
    assert worker("POST", "/events", {"events": []}).status_code == 422
    assert worker("POST", "/events", {"events": [event("e", "u", "i")] * 1001}).status_code == 422


def test_feedback_belongs_to_a_recommendation(worker: Worker) -> None:
    answer = worker.ask(user_id="u2", k=5)
    second = worker.ask(user_id="u2", k=5, page=answer["next"])
    click = {"feedback_id": "f1", "token": second["token"], "kind": "dismiss", "item_id": ids(second)[2], "timestamp": START + 60}

    found = worker("POST", "/feedback", click).json()
    assert found == {"stored": 1, "duplicates": 0, "position": 8, "event": None}
    assert worker("POST", "/feedback", click).json()["duplicates"] == 1
    assert worker("POST", "/feedback", {**click, "feedback_id": "f2", "kind": "impression", "depth": 4}).status_code == 200

    changed = second["token"][:-4] + ("AAAA" if not second["token"].endswith("AAAA") else "BBBB")
    for change, status, field in (
        ({"token": changed}, 403, "token"),
        ({"token": "ü"}, 403, "token"),
        ({"item_id": "i149" if "i149" not in ids(answer) + ids(second) else "i148"}, 409, "item_id"),
        ({"user_id": "u3"}, 409, "user_id"),
        ({"kind": "love"}, 422, "kind"),
        ({"kind": "rating"}, 409, "value"),
        ({"item_id": None}, 409, "item_id"),
    ):
        refused = worker("POST", "/feedback", {**click, **change})
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (status, field), change


def test_the_secret_is_made_once_and_is_the_owners_alone(worker: Worker, home: Path) -> None:
    path = home / "shop.secret"
    assert path.stat().st_mode & 0o777 == 0o600
    token = worker.ask(user_id="u1")["token"]
    assert Signer.of(path).read(token, "token").user == "u1"


def test_a_forgotten_user_is_unknown_to_all_workers(home: Path) -> None:
    with Worker(home) as one, Worker(home) as other:
        one.tell(event("e1", "u4", "i1"))
        assert other.ask(user_id="u4")["fallback"] is None
        assert one("DELETE", "/users/u4").json() == {"forgotten": "u4", "rows": 1}
        for worker in (one, other):
            assert worker.ask(user_id="u4")["fallback"] == "unknown_user"
            assert worker("GET", "/users/u4").json()["events"] == []
        other.tell(event("e2", "u4", "i2", at=START + 99))
        assert one.ask(user_id="u4")["fallback"] is None


def test_feedback_on_a_reason_says_its_kind(worker: Worker) -> None:
    answer = worker.ask(history=["i3", "i4", "i5"], k=5, explain=True)
    said = {"token": answer["token"], "timestamp": START, "item_id": ids(answer)[1]}
    kind = answer["items"][1]["reason"]["kind"]
    assert kind in ("events", "without", "whole")
    good = {"feedback_id": "r1", "kind": "helpful", "reason": kind, **said}
    stored = worker("POST", "/feedback", good)
    assert stored.json() == {"stored": 1, "duplicates": 0, "position": 2, "event": None}
    assert worker("POST", "/feedback", good).json()["duplicates"] == 1
    for wrong, status in (
        ({"kind": "helpful"}, 409),  # of what kind?
        ({"kind": "click", "reason": kind}, 409),
        ({"kind": "helpful", "reason": "stars"}, 422),
        ({"kind": "helpful", "reason": kind, "item_id": "i3"}, 409),  # not shown
        ({"kind": "not_helpful", "reason": kind, "token": answer["token"][:-4] + "AAAA"}, 403),
    ):
        refused = worker("POST", "/feedback", {**said, "feedback_id": "r2", **wrong})
        assert refused.status_code == status, refused.text
    (row,) = [one for one in worker.service.store.view().changes() if isinstance(one, Feedback)]
    assert (row.kind, row.item_id, row.token) == (f"helpful:{kind}", said["item_id"], answer["token"])


def test_what_is_pinned_and_what_everybody_gets_have_kinds_of_their_own(worker: Worker) -> None:
    rules = [{"name": "christmas", "pin": ["i77"], "at": 1}]
    kinds = [item["reason"]["kind"] for item in worker.ask(k=3, explain=True, rules=rules)["items"]]
    assert kinds == ["editors", "newcomer", "newcomer"]
