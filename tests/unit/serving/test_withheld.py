"""Events that do not count: of items that come later, until they come, and of robots, as in the night."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.service_app import Worker, event, ids, make_served, name_champion
from tests.serving_bundle import DAY, START

NOW, LIMIT = START + 2 * DAY, 20
COLUMNS = {"title": "Fresh", "genres": "red"}


def lists(worker: Worker, users: list[str]) -> list[dict[str, float]]:
    """Each user's whole list, item -> score."""
    answers = [worker.ask(user_id=user, k=160, now=NOW, exclude_seen=False)["items"] for user in users]
    return [{item["item_id"]: item["score"] for item in one} for one in answers]


def test_an_event_before_its_item_counts_when_the_item_comes(home: Path, made: Path, tmp_path: Path) -> None:
    events = [
        event("e1", "u1", "fresh", at=START + 1),
        event("e2", "u1", "i3", at=START + 2),
        event("e3", "new", "fresh", "view", at=START + 3),
        event("e4", "new", "fresh", at=START + 4),
        event("gone", "u2", "fresh", at=START + 5),
        event("e5", "u2", "i4", at=START + 6),
    ]
    users = ["u1", "new", "u2", "u3"]
    other = tmp_path / "other"
    other.mkdir()
    name_champion(other, made)
    with Worker(home) as late, Worker(other) as early:
        for worker in (late, early):
            if worker is early:
                worker("PUT", "/items/fresh", COLUMNS)
            for one in events:
                worker.tell(one)
                lists(worker, users[:2])
            worker("DELETE", "/events/gone")
        late.tell(event("e6", "asks to go", "fresh", at=START + 7))
        late("DELETE", "/users/asks to go")
        assert "fresh" not in lists(late, ["u3"])[0]
        assert late("PUT", "/items/fresh", COLUMNS).status_code == 200
        assert not late.service.model.awaited
        wanted = lists(early, users)
        for found, one in zip(lists(late, users), wanted, strict=True):
            assert found == pytest.approx(one, abs=1e-4)
        assert "fresh" not in ids(late.ask(user_id="u1", k=160))
    with Worker(home) as again:
        for found, one in zip(lists(again, users), wanted, strict=True):
            assert found == pytest.approx(one, abs=1e-4)


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A champion of a night that takes users with more than 20 events a day for robots."""
    return make_served(tmp_path_factory.mktemp("strict"), busiest_day=LIMIT)


def many(count: int) -> list[dict[str, Any]]:
    return [event(f"r{number}", "bot", f"i{number % 30}", at=START + number) for number in range(count)]


def test_nothing_of_a_robot_counts_as_in_the_night(strict: Path, tmp_path: Path) -> None:
    name_champion(tmp_path, strict)
    with Worker(tmp_path) as worker, Worker(tmp_path) as other:
        before = lists(worker, ["u1", "u2"])
        worker.tell(*many(LIMIT))
        worker.tell(event("again", "bot", "i0", at=START))  # a duplicate, by which the night counts nobody
        assert worker.ask(user_id="bot")["fallback"] is None
        learned = lists(worker, ["u1", "u2"])
        assert learned != before
        worker.tell(event("r20", "bot", "i20", at=START + 20))
        for one in (worker, other):
            assert one.ask(user_id="bot")["fallback"] == "unknown_user"
            for found, wanted in zip(lists(one, ["u1", "u2"]), before, strict=True):
                assert found == pytest.approx(wanted, abs=1e-4)
        worker.tell(event("r21", "bot", "i21", at=START + 3 * DAY))
        assert worker.ask(user_id="bot")["fallback"] == "unknown_user"
        worker("DELETE", "/events/r20")
        worker("DELETE", "/events/r21")
        for one in (worker, other):
            assert one.ask(user_id="bot")["fallback"] is None
            for found, wanted in zip(lists(one, ["u1", "u2"]), learned, strict=True):
                assert found == pytest.approx(wanted, abs=1e-4)
