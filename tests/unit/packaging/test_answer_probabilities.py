"""What the calibrated heads say of recommended items, and when a request without a time is made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nightloom.core.queries import Query
from nightloom.models.heads.item_counters import ItemCounters
from nightloom.packaging.bundle import Bundle
from tests.small_bundle import N_ITEMS, headed_bundle, small_bundle


@pytest.fixture(scope="module")
def headed(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(headed_bundle(tmp_path_factory.mktemp("heads") / "bundle"))


def test_each_head_answers_for_the_items_that_were_recommended(headed: Bundle) -> None:
    queries = [Query(["i1", "no such item", "i2"]), Query()]
    answers = headed.recommend(queries, 3)
    said = headed.answer_probabilities(queries, answers)
    assert list(said) == ["probability", "label_probability"]
    items = [[item for item, _ in one] for one in answers]
    assert said["label_probability"] == headed.probabilities(queries, items)
    for probabilities, answer in zip(said["probability"], answers, strict=True):
        assert probabilities == sorted(probabilities, reverse=True)
        assert probabilities == pytest.approx([1 / (1 + np.exp(-score)) for _, score in answer])


def test_a_model_without_heads_gives_no_probabilities(tmp_path: Path) -> None:
    plain = Bundle.load(small_bundle(tmp_path / "bundle"))
    assert plain.answer_probabilities([Query(["i1"])], plain.recommend([Query(["i1"])], 3)) == {}


def test_what_was_not_liked_is_another_history(headed: Bundle) -> None:
    history = ["i1", "no such item", "i2"]
    unsaid, liked, not_all = (headed.recommend([Query(history, positive=one)], 3) for one in (None, [True] * 3, [True, True, False]))
    assert liked == unsaid
    assert not_all != unsaid


def test_the_reranker_takes_its_candidates_from_the_allowed_items(headed: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nightloom.models.heads.reranker.CANDIDATES", 2)
    queries = [Query(["i1"]), Query()]
    best = [{item for item, _ in one} for one in headed.recommend(queries, 2)]
    allowed = np.array([item not in best[0] | best[1] for item in headed.item_ids])
    histories = headed.histories(queries)
    members = headed.recommender.network_scores(histories), headed.recommender.scorer_scores(histories)
    scores = headed.recommender.finish(*members, histories, allowed=allowed)
    fallback = headed.recommender.finish(*members, histories, allowed=~allowed)
    answers = headed.recommend(queries, 10, allowed=allowed)
    for row, answer in enumerate(answers):
        assert answer
        assert {item for item, _ in answer} <= set(headed.item_ids[allowed])
        assert [score for _, score in answer] == pytest.approx([scores[row, headed.index[item]] for item, _ in answer])
        changed = [item for item in headed.item_ids[allowed] if scores[row, headed.index[item]] != fallback[row, headed.index[item]]]
        assert len(changed) == 2, "the best two allowed items have the head's log-odds, as candidates"


def test_a_request_without_a_time_is_one_of_now_to_the_reranker(headed: Bundle) -> None:
    head = headed.recommender.reranker
    assert head is not None
    timeless = replace(headed.histories([Query(["i1", "i2"]), Query()]), request_time=np.zeros(2, dtype=np.int64))
    now = replace(timeless, times=timeless.times + head.item_counters.now, request_time=timeless.request_time + head.item_counters.now)
    random = np.random.default_rng(0)
    fused, *tables = random.normal(size=(1 + len(head.members), 2, N_ITEMS)).astype(np.float32)
    given = fused, dict(zip(head.members, tables, strict=True))
    found = head.rescore(*given, timeless)
    np.testing.assert_array_equal(found, head.rescore(*given, now))
    nothing_sold = replace(head, item_counters=ItemCounters.of(headed.histories([]), N_ITEMS))
    assert not np.array_equal(found, nothing_sold.rescore(*given, timeless))
    early = replace(timeless, request_time=timeless.request_time + 1)  # before anything was sold
    assert not np.array_equal(found, head.rescore(*given, early))
