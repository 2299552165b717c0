"""Scores of a large catalogue: those of a small one, made another way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nightloom.core.recommender import mask_seen
from nightloom.core.sequences import Histories, Queries
from nightloom.core.top_k import top_k
from nightloom.models.scorers import sparse
from nightloom.models.scorers.registry import CLASSES
from nightloom.models.scorers.score_fusion import NETWORK, standard
from nightloom.models.scorers.sparse import SparseScorer
from nightloom.models.sequential import recommender as module
from nightloom.models.sequential.large_catalogue import best_of_each, members_at
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.packaging.bundle import Bundle
from nightloom.training import fusion_weights, reranking
from nightloom.training.fusion_weights import Shortlists
from nightloom.training.reranking import candidate_rows
from tests.serving_bundle import N_ITEMS, known_histories, serving_bundle


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return serving_bundle(tmp_path_factory.mktemp("large") / "bundle", reranker=True, penalty=0.3)


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every catalogue counts as large."""
    for one in (module, fusion_weights, reranking):
        monkeypatch.setattr(one, "FROM_ITEMS", 0)
    monkeypatch.setattr(sparse, "MANY_ITEMS", 0)


def model_of(folder: Path) -> SequentialRecommender:
    return Bundle.load(folder).recommender


def some(*, new: bool = True) -> Histories:
    """Histories of some length, and one that is empty."""
    known = known_histories(9, 3)
    lengths = known.lengths
    lengths[4] = 0 if new else lengths[4]
    return known.of_events(np.arange(lengths.sum()), np.concatenate([[0], np.cumsum(lengths)]))


def test_scores_are_those_of_full_tables(folder: Path, request: pytest.FixtureRequest) -> None:
    histories, allowed = some(), np.arange(N_ITEMS) % 3 > 0
    before = model_of(folder).scores(histories)
    shown = model_of(folder).recommend(histories, 10, allowed=allowed)
    request.getfixturevalue("large")
    np.testing.assert_allclose(model_of(folder).scores(histories), before, atol=2e-4)
    items, scores = model_of(folder).recommend(histories, 10, allowed=allowed)
    np.testing.assert_array_equal(items, shown[0])
    np.testing.assert_allclose(scores, shown[1], atol=2e-4)
    plain = model_of(folder)
    plain.reranker = plain.penalty = None
    fused = plain.scores(histories)
    request.getfixturevalue("monkeypatch").undo()
    np.testing.assert_allclose(fused, plain.scores(histories), atol=1e-5)


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_the_best_of_each_member_are_those_of_its_full_table(folder: Path, *, exclude_seen: bool) -> None:
    model, histories, k = model_of(folder), some(), 12
    scorers = dict(model.scorers)
    tables = {NETWORK: model.network_scores(histories), **{name: one.scores(histories) for name, one in scorers.items()}}
    found = best_of_each(model, histories, scorers, k, exclude_seen=exclude_seen)
    for (name, table), listed in zip(tables.items(), found, strict=True):
        if exclude_seen:
            mask_seen(table, histories)
        wanted = top_k(table, k)
        values, theirs = (np.take_along_axis(table, one, 1) for one in (wanted, listed))
        there = np.isfinite(values)
        np.testing.assert_array_equal(np.sort(theirs, 1)[:, ::-1][there], values[there], name)
        if isinstance(scorers.get(name), SparseScorer):
            np.testing.assert_array_equal(listed[there], wanted[there], f"{name}: ties fall alike")
    standardised = members_at(model, histories, found[0], scorers)
    for name in tables:
        np.testing.assert_allclose(
            standardised[name][4], standard(model_table(model, name, histories))[4][found[0][4]], atol=1e-5, err_msg=name
        )
    assert set(standardised) == {NETWORK, *CLASSES}


def model_table(model: SequentialRecommender, name: str, histories: Histories) -> np.ndarray:
    return model.network_scores(histories) if name == NETWORK else model.scorers[name].scores(histories)


def test_weights_and_the_re_ranker_are_chosen_by_the_same_numbers(folder: Path, request: pytest.FixtureRequest) -> None:
    histories = some()
    targets = np.arange(len(histories), dtype=np.int32) * 7
    queries = Queries(np.arange(len(histories)), histories, np.arange(len(histories) + 1), targets)
    model = model_of(folder)
    assert model.reranker is not None
    counters = model.reranker.item_counters
    before, rows = Shortlists(model, queries, exclude_seen=True), candidate_rows(model, queries, counters, exclude_seen=True)
    request.getfixturevalue("large")
    after, large_rows = Shortlists(model, queries, exclude_seen=True), candidate_rows(model, queries, counters, exclude_seen=True)
    for name in (NETWORK, "als", "text_neighbours"):
        np.testing.assert_allclose(after.gains({name: 1.0}), before.gains({name: 1.0}), atol=1e-9)
    some_weights = {NETWORK: 0.5, "als": 0.2, "graph": 0.2, "popularity": 0.1}
    np.testing.assert_allclose(after.gains(some_weights), before.gains(some_weights), atol=1e-9)
    np.testing.assert_allclose(large_rows[0], rows[0], atol=2e-4)
    np.testing.assert_array_equal(large_rows[2], rows[2])
