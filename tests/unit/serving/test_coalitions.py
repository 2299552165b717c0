"""Coalitions of a history's events are scored as the engine, and the bundle, score what is left of the history."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nightloom.models.scorers.registry import CLASSES
from nightloom.serving.items.new_items import NewItem
from nightloom.serving.model.engine import Engine
from nightloom.serving.reasons import coalitions
from nightloom.serving.reasons.coalitions import log_softmax, subsets
from tests.serving_bundle import N_ITEMS, START, some_query, with_positive

CLOSE = 1e-4


def some_coalitions(events: int, seed: int = 0) -> np.ndarray:
    """Everybody, nobody, all but one, one alone, and a few at random."""
    random = np.random.default_rng(seed)
    alone = np.eye(events, dtype=bool)[:: max(events // 6, 1)]
    drawn = random.random((8, events)) < random.random((8, 1))
    return np.concatenate([np.ones((1, events), bool), np.zeros((1, events), bool), ~alone, alone, drawn])


@pytest.mark.parametrize("events", [0, 1, 7, 60, 230])
@pytest.mark.parametrize(
    "said",
    [
        {},
        {"reranker": True},
        {"scorers": ()},
        {"timed": False},
        {"use_time": False},
        {"max_history": 12},
        {"labels": True},
        {"penalty": 0.4},
    ],
    ids=["fused", "reranked", "network alone", "no times", "times not used", "short window", "label head", "penalty"],
)
def test_scores_of_coalitions_are_the_bundle_s(pairs: Any, said: dict[str, Any], events: int) -> None:
    bundle, engine = pairs(**said)
    timed = said.get("timed", True)
    for query in (some_query(events, timed=timed), with_positive(some_query(events, 1, timed=timed, friends=0))):
        history = bundle.histories([query])
        keep = some_coalitions(len(history.items))
        wanted = bundle.recommender.scores(subsets(history, keep))
        np.testing.assert_allclose(engine.coalitions(query).scores(keep), wanted, atol=CLOSE, rtol=0)


@pytest.mark.parametrize("scorer", CLASSES)
def test_each_scorer(pairs: Any, scorer: str) -> None:
    bundle, engine = pairs(scorers=(scorer,))
    query = with_positive(some_query(60))
    history = bundle.histories([query])
    keep = some_coalitions(len(history.items))
    wanted = bundle.recommender.scores(subsets(history, keep))
    np.testing.assert_allclose(engine.coalitions(query).scores(keep), wanted, atol=CLOSE, rtol=0)


@pytest.mark.parametrize("reranker", [False, True], ids=["fused", "reranked"])
def test_worth_is_that_of_the_scores_that_are_served(pairs: Any, reranker: bool) -> None:
    """Within 1e-3, as what is served has learned by day: events, an item that came, one that was removed."""
    engine = Engine.open(pairs(reranker=reranker)[1].artefact.folder)
    for step in range(12):
        engine.apply("someone", f"i{step}", step % 3, START + step, positive=step % 3 == 1)
    engine.put_item(NewItem("new", {"title": "Title new", "price": 3.0}))
    engine.remove_item("i5")
    items, scores = engine.recommend_user("someone", len(engine.catalogue), now=START + 50, exclude_seen=False)
    found = engine.coalitions("someone", now=START + 50)
    worth = found.log_probabilities(np.ones((1, 12), bool), items)[0]
    whole = found.scores(np.ones((1, 12), bool))
    np.testing.assert_allclose(whole[0, items], scores, atol=CLOSE)
    np.testing.assert_allclose(worth, log_softmax(whole, items)[0], atol=1e-9)
    served = scores - np.log(np.exp(whole.astype(np.float64)).sum())
    np.testing.assert_allclose(worth, served, atol=1e-3)


def test_the_candidates_of_the_re_ranker_are_what_is_allowed(pairs: Any) -> None:
    _, engine = pairs(reranker=True)
    allowed = np.zeros(N_ITEMS, dtype=bool)
    allowed[20:140:3] = True
    query = some_query(30)
    items, scores = engine.recommend(query, 10, allowed=allowed, exclude_seen=False)
    found = engine.coalitions(query, allowed=allowed)
    whole = found.scores(np.ones((1, found.events), bool))
    np.testing.assert_allclose(whole[0, items], scores, atol=CLOSE)
    assert found.ranks(whole, items, np.zeros(0, int))[0].tolist() == list(range(1, 11))


def test_ranks_leave_out_what_is_hidden(pairs: Any) -> None:
    _, engine = pairs()
    query = some_query(30)
    found = engine.coalitions(query)
    whole = found.scores(np.ones((1, found.events), bool))
    items, _ = engine.recommend(query, 10)
    seen = found.history.items[found.history.seen]
    assert found.ranks(whole, items, seen)[0].tolist() == list(range(1, 11))


def test_the_rank_of_an_item_for_a_coalition_is_that_among_all(pairs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coalitions, "CELLS", 3 * N_ITEMS)  # blocks of three coalitions
    _, engine = pairs()
    found = engine.coalitions(some_query(30))
    keep, items, hidden = some_coalitions(found.events)[:8], np.array([3, 50, 7, 140]), np.array([7, 20])
    _, whole = found.outcomes(keep, items, hidden)
    rows, columns = np.repeat(np.arange(8), [0, 2, 1, 0, 4, 1, 0, 3]), np.array([0, 2, 3, 0, 1, 2, 3, 1, 0, 1, 2])
    assert found.ranks_of(keep, rows, items[columns], hidden).tolist() == whole[rows, columns].tolist()


def test_the_order_of_coalitions_does_not_count(pairs: Any) -> None:
    _, engine = pairs()
    found = engine.coalitions(some_query(40))
    keep = some_coalitions(found.events)
    order = np.random.default_rng(0).permutation(len(keep))
    np.testing.assert_allclose(found.scores(keep)[order], found.scores(keep[order]), atol=1e-6)
