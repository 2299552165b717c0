"""The same user at the same time gets the same scores from evaluation, from the registered model, and from its bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from nightloom.core.queries import LIVE_SECONDS, Query
from nightloom.core.ranking import ranks
from nightloom.core.sequences import Histories, Queries
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.pyfunc_model import Recommender
from tests.small_bundle import headed_bundle

DAY = 86_400
END = 1_700_000_000 - 1000
"""The latest event that the counters of the bundle know."""
HISTORY, AWAY = ["i0", "i1"], [END - 230 * DAY, END - 200 * DAY]
"""Of a user who was here last 200 days before the end."""


@pytest.fixture
def model(tmp_path: Path) -> Bundle:
    """A bundle with a re-ranker and a label head, whose data have times."""
    bundle = Bundle.load(headed_bundle(tmp_path / "headed"))
    bundle.meta = dict(bundle.meta) | {"has_time": True, "latest_event": END}
    assert bundle.recommender.reranker is not None
    return bundle


def by_evaluation(model: Bundle, moment: int) -> list[float]:
    """Scores as evaluation ranks by them: packed histories, and the time of the next event as that of the request."""
    known = Histories.of_items([[model.index[item] for item in HISTORY]], request_time=moment)
    histories = replace(known, times=np.array(AWAY), event_types=model.event_names.codes([model.event_names.default] * 2))
    queries = Queries(np.array([0]), histories, np.array([0, 1]), np.array([2], dtype=np.int32))
    assert len(ranks(model.recommender, queries, exclude_seen=False).ranks) == 1
    scores: list[float] = model.recommender.scores(histories)[0].tolist()
    return scores


def by_bundle(model: Bundle, query: Query) -> list[float]:
    found = dict(model.recommend([query], len(model.item_ids), exclude_seen=False)[0])
    return [found[item] for item in model.item_ids.tolist()]


def by_pyfunc(model: Bundle, row: dict[str, object]) -> list[float]:
    served = Recommender()
    served.bundle = model
    rows = pd.DataFrame([{"history": HISTORY, "times": AWAY} | row])
    found = served.predict(SimpleNamespace(model_config={}), rows, {"k": len(model.item_ids), "exclude_seen": False})
    scores = dict(zip(found["items"][0], found["scores"][0], strict=True))
    return [scores[item] for item in model.item_ids.tolist()]


@pytest.mark.parametrize("after", [-190 * DAY, 1, 9 * DAY, 400 * DAY])
def test_a_given_time_is_the_same_time_everywhere(model: Bundle, after: int) -> None:
    wanted = by_evaluation(model, END + after)
    np.testing.assert_allclose(by_bundle(model, Query(HISTORY, AWAY, request_time=END + after)), wanted, atol=1e-5)
    np.testing.assert_allclose(by_pyfunc(model, {"request_time": END + after}), wanted, atol=1e-5)


@pytest.mark.parametrize(("now", "moment"), [(END + 3 * DAY, END + 3 * DAY), (END + LIVE_SECONDS + 1, END + 1)])
def test_without_a_time_a_request_is_now_or_at_the_end_of_data_of_the_past(
    model: Bundle, monkeypatch: pytest.MonkeyPatch, now: int, moment: int
) -> None:
    monkeypatch.setattr("nightloom.core.queries.time.time", lambda: float(now))
    wanted = by_evaluation(model, moment)
    np.testing.assert_allclose(by_bundle(model, Query(HISTORY, AWAY)), wanted, atol=1e-5)
    np.testing.assert_allclose(by_pyfunc(model, {}), wanted, atol=1e-5)
    assert not np.allclose(by_evaluation(model, max(AWAY)), wanted, atol=1e-3)  # the time of the user's last event was another


def test_data_without_times_have_no_now(model: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    model.meta = dict(model.meta) | {"has_time": False}
    first, second = [], []
    for found, now in ((first, END), (second, END + 10 * DAY)):
        monkeypatch.setattr("nightloom.core.queries.time.time", lambda now=now: float(now))
        found += [by_bundle(model, query) for query in (Query(HISTORY, AWAY), Query(HISTORY), Query())]
    assert first == second
