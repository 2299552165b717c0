"""What the calibrated heads say of recommended items, and when a question without a time is asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nightloom.core.errors import InputError
from nightloom.models.heads.item_counters import ItemCounters
from nightloom.packaging.bundle import Bundle
from tests.small_bundle import N_ITEMS, headed_bundle, small_bundle


@pytest.fixture(scope="module")
def headed(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(headed_bundle(tmp_path_factory.mktemp("heads") / "bundle"))


def test_each_head_answers_for_the_items_that_were_recommended(headed: Bundle) -> None:
    histories = [["i1", "no such item", "i2"], []]
    answers = headed.recommend(histories, 3)
    said = headed.answer_probabilities(histories, answers)
    assert list(said) == ["probability", "label_probability"]
    items = [[item for item, _ in one] for one in answers]
    assert said["label_probability"] == headed.probabilities(histories, items)
    for probabilities, answer in zip(said["probability"], answers, strict=True):
        assert probabilities == sorted(probabilities, reverse=True)
        assert probabilities == pytest.approx([1 / (1 + np.exp(-score)) for _, score in answer])


def test_a_model_without_heads_gives_no_chances(tmp_path: Path) -> None:
    plain = Bundle.load(small_bundle(tmp_path / "bundle"))
    assert plain.answer_probabilities([["i1"]], plain.recommend([["i1"]], 3)) == {}


def test_what_was_not_liked_is_another_history_for_lists_and_chances(headed: Bundle) -> None:
    ask = [["i1", "no such item", "i2"]]
    liked, not_all = [[True, True, True]], [[True, True, False]]
    assert headed.recommend(ask, 3, positive=liked) == headed.recommend(ask, 3)
    assert headed.recommend(ask, 3, positive=not_all) != headed.recommend(ask, 3)
    with pytest.raises(InputError, match="positive"):
        headed.recommend(ask, 3, positive=[[True]])


def test_without_a_time_the_reranker_is_asked_now(headed: Bundle) -> None:
    head = headed.recommender.reranker
    assert head is not None
    timeless = headed.histories([["i1", "i2"], []])
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
