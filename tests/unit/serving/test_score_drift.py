"""Scores by day beside those of the champion's training."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from dataclasses import replace

import numpy as np
import pytest

from nightloom.serving import score_drift
from nightloom.serving.app import LOOK_SECONDS
from nightloom.serving.score_drift import ENOUGH, ScoreDrift
from tests.service_app import USERS, Worker, event
from tests.serving_bundle import START


def all_asked(drift: ScoreDrift) -> ScoreDrift:
    for _ in range(USERS + 1):
        drift.tick()
    return drift


def test_scores_of_the_same_people_have_not_moved_and_others_have(worker: Worker) -> None:
    model = worker.service.model
    users = model.view.some_users(100)
    assert sorted(users) == sorted(f"u{number}" for number in range(USERS))
    assert len(model.view.some_users(5)) == 5
    before = len(model.engine.cached_users())
    drift = all_asked(ScoreDrift(model))
    assert len(model.engine.cached_users()) == before, "it takes no room from users who ask"
    own = [float(model.engine.recommend(model.trained_on(user), 1)[1][0]) for user in users]
    assert "scores_psi" not in drift.gauges()
    for score in np.resize(own, ENOUGH):
        drift.count(float(score), exclude_seen=True)
    drift.count(0.0, exclude_seen=False)  # other lists than those of the training
    assert drift.gauges()["scores_compared"] == ENOUGH
    assert drift.gauges()["scores_psi"] < 0.05
    for _ in range(2 * ENOUGH):
        drift.count(max(own) + 1, exclude_seen=True)
    assert drift.gauges()["scores_psi"] > 0.25


def test_plain_lists_of_known_people_are_compared(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_drift, "ENOUGH", 3)
    drift = worker.service.drift
    assert drift is not None
    all_asked(drift)
    for said in ({"history": ["i1", "i2"]}, {"user_id": "u1"}, {"user_id": "u2", "k": 20}):
        first = worker.ask(**said)
    worker.ask(user_id="nobody")
    worker.ask(history=[])
    worker.ask(user_id="u2", k=20, page=first["next"])
    worker.ask(user_id="u2", items=["i1"])
    worker.ask(user_id="u2", filter={"not": {"in": {"genres": ["red"]}}})
    worker.ask(user_id="u2", rules=[{"name": "mine", "cap": "genres", "most": 5}])
    assert drift.gauges()["scores_compared"] == 3
    worker.tell(event("e1", "u1", "i5"))
    text = worker("GET", "/metrics").text
    assert re.search(r"^nightloom_scores_psi \d", text, re.MULTILINE)
    assert f"nightloom_trained_until_seconds {float(START)}" in text
    learned = re.search(r"^nightloom_learned_at_seconds (\S+)", text, re.MULTILINE)
    assert learned is not None
    assert float(learned[1]) > START


def test_lists_with_seen_items_are_compared_with_such(worker: Worker) -> None:
    model = worker.service.model
    model.champion = replace(model.champion, exclude_seen=False)
    drift = all_asked(ScoreDrift(model))
    users = model.view.some_users(100)
    own = [float(model.engine.recommend(model.trained_on(user), 1, exclude_seen=False)[1][0]) for user in users]
    for score in np.resize(own, ENOUGH):
        drift.count(float(score), exclude_seen=False)
    assert drift.gauges()["scores_psi"] < 0.05


def test_who_was_forgotten_is_not_asked_about(worker: Worker) -> None:
    assert worker.service.model.view.trained_on("u1")
    assert worker("DELETE", "/users/u1").status_code < 300
    assert not worker.service.model.view.trained_on("u1")


def test_a_store_that_can_not_be_read_ends_the_comparison_alone(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: str) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    service = worker.service
    monkeypatch.setattr(service.model.view, "trained_on", broken)
    for _ in range(100):
        worker.rest(LOOK_SECONDS / 5)
        if service.drift is None:
            break
    assert service.drift is None

    async def of_the_worker() -> set[str]:
        return {task.get_coro().__qualname__ for task in asyncio.all_tasks() if not task.done()}  # type: ignore[union-attr]

    assert {"_watch", "_leave"} <= worker._runner.run(of_the_worker()), "it still follows the champion"
