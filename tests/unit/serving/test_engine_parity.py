"""The engine gives the answers of the bundle that its artefact was made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nightloom.core.errors import InputError
from nightloom.core.queries import Query
from nightloom.models.scorers.registry import CLASSES
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.serving_artefact import write_serving
from nightloom.serving.items.new_items import NewItem
from nightloom.serving.model.engine import Engine
from tests.serving_bundle import N_ITEMS, TEXT_DIM, serving_bundle, some_query, with_positive

LENGTHS = (0, 1, 50, 199, 400)
CLOSE = 1e-4


def same(engine: Engine, found: tuple[np.ndarray, np.ndarray], wanted: list[tuple[str, float]]) -> None:
    """Scores within `CLOSE`, and the same items but for ties."""
    items, scores = found
    expected = np.array([score for _, score in wanted])
    assert len(items) == len(wanted)
    np.testing.assert_allclose(scores, expected, atol=CLOSE, rtol=0)
    for place, (item, (said, _)) in enumerate(zip(items.tolist(), wanted, strict=True)):
        if engine.item_ids[item] != said:
            assert (np.abs(np.delete(expected, place) - expected[place]) < 2 * CLOSE).any(), (place, engine.item_ids[item], said)


@pytest.mark.parametrize("timed", [True, False], ids=["timed", "timeless"])
@pytest.mark.parametrize("events", LENGTHS)
def test_all_scorers(pairs: Any, events: int, timed: bool) -> None:
    bundle, engine = pairs()
    for seed in range(5):
        query = some_query(events, seed, timed=timed)
        same(engine, engine.recommend(query, 20), bundle.recommend([query], 20)[0])


@pytest.mark.parametrize("scorer", CLASSES)
def test_each_scorer(pairs: Any, scorer: str) -> None:
    bundle, engine = pairs(scorers=(scorer,))
    for events in LENGTHS:
        query = some_query(events)
        same(engine, engine.recommend(query, N_ITEMS), bundle.recommend([query], N_ITEMS)[0])


@pytest.mark.parametrize("max_history", [200, 12])
@pytest.mark.parametrize("reranker", [False, True], ids=["fused", "reranked"])
@pytest.mark.parametrize("newcomers", [False, True], ids=["one set of weights", "newcomers have their own"])
def test_weights_for_each_length(pairs: Any, newcomers: bool, reranker: bool, max_history: int) -> None:
    """All events count, those beyond the network's window, and those that were not positive, too."""
    bundle, engine = pairs(newcomers=newcomers, reranker=reranker, max_history=max_history)
    assert (bundle.recommender.newcomer_weights is not None) == newcomers
    for events in LENGTHS:
        for query in (some_query(events), with_positive(some_query(events))):
            same(engine, engine.recommend(query, N_ITEMS), bundle.recommend([query], N_ITEMS)[0])


@pytest.mark.parametrize("positive", [True, False])
def test_als_counts_each_positive_event(pairs: Any, positive: bool) -> None:
    """What was consumed twice, more events than are looked at, and histories of which nothing, or all, was positive."""
    bundle, engine = pairs(scorers=("als",))
    assert bundle.recommender.scorers["als"].memory < 400  # type: ignore[attr-defined]
    for history in (["i1"], ["i1", "i1", "i2", "i1"], [f"i{event % 90}" for event in range(400)]):
        query = Query(history, positive=[positive] * len(history))
        scores = np.empty(N_ITEMS, np.float32)
        engine.members["als"].score(engine._read(query), scores)
        wanted = bundle.recommender.scorers["als"].scores(bundle.histories([query]))[0]
        np.testing.assert_allclose(scores, wanted, atol=1e-5, rtol=0)
        assert (np.abs(wanted).max() > 1e-2) == positive
        same(engine, engine.recommend(query, N_ITEMS), bundle.recommend([query], N_ITEMS)[0])


@pytest.mark.parametrize(
    "said",
    [{"scorers": ()}, {"timed": False}, {"use_time": False}, {"adapter": 4, "labels": True}, {"max_history": 7}],
    ids=["network alone", "data without times", "times not used", "adapter and label head", "short window"],
)
def test_each_kind_of_network(pairs: Any, said: dict[str, Any]) -> None:
    bundle, engine = pairs(**said)
    for events in (0, 1, 7, 50, 400):
        query = with_positive(some_query(events))
        same(engine, engine.recommend(query, 20), bundle.recommend([query], 20)[0])


def test_what_may_be_recommended(pairs: Any) -> None:
    bundle, engine = pairs()
    query, random = some_query(50), np.random.default_rng(3)
    for allowed in (random.random(N_ITEMS) < 0.3, np.arange(N_ITEMS) < 4, np.zeros(N_ITEMS, dtype=bool)):
        for exclude_seen in (True, False):
            wanted = bundle.recommend([query], 20, exclude_seen=exclude_seen, allowed=allowed)[0]
            same(engine, engine.recommend(query, 20, exclude_seen=exclude_seen, allowed=allowed), wanted)
    short = np.ones(N_ITEMS - 5, dtype=bool)
    assert engine.recommend(query, N_ITEMS, allowed=short)[0].max() < N_ITEMS - 5


def test_a_given_list_is_ranked(pairs: Any) -> None:
    bundle, engine = pairs()
    query = some_query(50)
    candidates = np.array([7, 3, 90, 3, 140, 12])
    items, scores = engine.recommend(query, 10, exclude_seen=False, candidates=candidates)
    assert sorted(items.tolist()) == [3, 7, 12, 90, 140]
    (wanted,) = bundle.recommender.candidate_scores(bundle.histories([query]), np.sort(items)[None])
    np.testing.assert_allclose(scores, wanted[np.searchsorted(np.sort(items), items)], atol=CLOSE)
    assert (np.diff(scores) <= 0).all()


@pytest.mark.parametrize("reranker", [False, True], ids=["fused", "reranked"])
def test_the_popularity_penalty(pairs: Any, reranker: bool) -> None:
    """It moves lists, alike in bundle and engine, for a few candidates as for all, and a re-ranker's probabilities stay as they are."""
    (plain, _), (bundle, engine) = pairs(reranker=reranker), pairs(reranker=reranker, penalty=2.0)
    penalty, moved = bundle.recommender.penalty, 0
    assert penalty is not None
    assert penalty.values.std() == pytest.approx(0.2 if reranker else 2.0, rel=1e-4)
    for events in LENGTHS:
        query = some_query(events)
        (wanted,) = bundle.recommend([query], N_ITEMS)
        same(engine, engine.recommend(query, N_ITEMS), wanted)
        without = dict(plain.recommend([query], N_ITEMS)[0])
        for item, score in wanted:
            assert score == pytest.approx(without[item] - penalty.values[bundle.index[item]], abs=1e-5)
        moved += [item for item, _ in wanted[:10]] != list(without)[:10]
        if reranker:
            top = [wanted[:10]]
            said = bundle.answer_probabilities([query], top)["probability"][0]
            again = plain.answer_probabilities([query], [[(item, without[item]) for item, _ in wanted[:10]]])["probability"][0]
            np.testing.assert_allclose(said, again, atol=1e-6)
        else:
            candidates = np.arange(0, N_ITEMS, 7)
            _, scores = engine.recommend(query, N_ITEMS, exclude_seen=False, candidates=candidates)
            found = bundle.recommender.candidate_scores(bundle.histories([query]), candidates[None])[0]
            np.testing.assert_allclose(scores, np.sort(found)[::-1], atol=CLOSE)
    assert moved >= 3


def test_an_item_that_comes_by_day_is_penalised_as_unseen(tmp_path: Path) -> None:
    bundle = serving_bundle(tmp_path / "bundle", penalty=0.7)
    write_serving(bundle, tmp_path / "serving")
    engine, other = Engine.open(tmp_path / "serving"), Bundle.load(bundle)
    dense = engine.put_item(NewItem("new", {"title": "Title 3", "genres": ["red"], "price": 9.0}, np.ones(TEXT_DIM, np.float32)))
    assert engine.penalty is not None
    assert len(engine.penalty.values) == N_ITEMS + 1
    assert engine.penalty.values[dense] == pytest.approx(other.recommender.penalty.unseen)  # type: ignore[union-attr]
    assert engine.penalty.values[dense] == engine.penalty.values.min()
    engine.recommend(some_query(5), N_ITEMS + 1)
    grown = pd.concat([other.items, pd.DataFrame([{"item_id": "new", "title": "t", "genres": None, "price": 1.0, "text": None}])])
    moved = other.reindex(grown.reset_index(drop=True), None).penalty  # type: ignore[attr-defined]
    np.testing.assert_array_equal(moved.values, engine.penalty.values)


def test_more_is_asked_than_there_is(pairs: Any) -> None:
    _, engine = pairs()
    items, _ = engine.recommend(some_query(50), 10 * N_ITEMS, exclude_seen=False)
    assert sorted(items.tolist()) == list(range(N_ITEMS))
    assert len(engine.recommend(Query(), 0)[0]) == 0


def test_ties_fall_by_item(pairs: Any) -> None:
    bundle, engine = pairs(scorers=("popularity",))
    query = Query()
    items, scores = engine.recommend(query, N_ITEMS)
    tied = np.flatnonzero(np.diff(scores) == 0)
    assert (items[tied] < items[tied + 1]).all()
    same(engine, (items, scores), bundle.recommend([query], N_ITEMS)[0])


@pytest.mark.parametrize("timed", [True, False], ids=["timed", "timeless"])
@pytest.mark.parametrize("events", LENGTHS)
def test_both_heads(pairs: Any, events: int, timed: bool) -> None:
    bundle, engine = pairs(reranker=True, labels=True)
    for seed in range(5):
        query = with_positive(some_query(events, seed, timed=timed), seed)
        for exclude_seen in (True, False):
            wanted = bundle.recommend([query], 20, exclude_seen=exclude_seen)[0]
            same(engine, engine.recommend(query, 20, exclude_seen=exclude_seen), wanted)
        items = np.random.default_rng(seed).permutation(N_ITEMS)[:30]
        (probabilities,) = bundle.probabilities([query], [[engine.item_ids[item] for item in items]])
        np.testing.assert_allclose(engine.label_probabilities(query, items), probabilities, atol=1e-6)


@pytest.mark.parametrize("said", [{"timed": False}, {"scorers": ()}, {"scorers": ("graph",), "use_time": False}], ids=str)
def test_each_kind_of_reranker(pairs: Any, said: dict[str, Any]) -> None:
    bundle, engine = pairs(reranker=True, **said)
    for events in (0, 3, 50):
        query = some_query(events)
        same(engine, engine.recommend(query, N_ITEMS), bundle.recommend([query], N_ITEMS)[0])


def test_the_reranker_looks_at_what_may_be_recommended(pairs: Any) -> None:
    bundle, engine = pairs(reranker=True)
    query, random = some_query(50), np.random.default_rng(3)
    for allowed in (random.random(N_ITEMS) < 0.8, random.random(N_ITEMS) < 0.2, np.arange(N_ITEMS) == 4):
        for exclude_seen in (True, False):
            wanted = bundle.recommend([query], N_ITEMS, exclude_seen=exclude_seen, allowed=allowed)[0]
            same(engine, engine.recommend(query, N_ITEMS, exclude_seen=exclude_seen, allowed=allowed), wanted)


@pytest.mark.parametrize("many", [1, 8, 120])
def test_the_reranker_ranks_a_given_list(pairs: Any, many: int) -> None:
    bundle, engine = pairs(reranker=True)
    query = some_query(50)
    candidates = np.sort(np.random.default_rng(many).permutation(N_ITEMS)[:many])
    items, scores = engine.recommend(query, many, exclude_seen=False, candidates=candidates)
    (wanted,) = bundle.recommender.candidate_scores(bundle.histories([query]), candidates[None])
    np.testing.assert_allclose(scores, wanted[np.searchsorted(candidates, items)], atol=CLOSE)


def test_what_a_query_may_not_say_is_refused(pairs: Any) -> None:
    _, engine = pairs()
    with pytest.raises(InputError, match="knows no event 'love'"):
        engine.recommend(Query(["i1"], event_types=["love"]), 5)
    with pytest.raises(InputError, match="gives no probabilities"):
        engine.label_probabilities(Query(), np.arange(3))
