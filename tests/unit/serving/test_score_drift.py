"""Scores by day beside those of the champion's training."""

from __future__ import annotations

import re

import numpy as np
import pytest

from nightloom.serving import score_drift
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
        drift.count(float(score))
    assert drift.gauges()["scores_compared"] == ENOUGH
    assert drift.gauges()["scores_psi"] < 0.05
    for _ in range(2 * ENOUGH):
        drift.count(max(own) + 1)
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
