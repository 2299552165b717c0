"""What the calibrated heads say of recommended items, and when a question without a time is asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nightloom.core.errors import InputError
from nightloom.models.heads.item_counters import Tallies
from nightloom.packaging.bundle import Bundle
from tests.small_bundle import N_ITEMS, headed_bundle, small_bundle


@pytest.fixture(scope="module")
def headed(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(headed_bundle(tmp_path_factory.mktemp("heads") / "bundle"))


def test_each_head_answers_for_the_items_that_were_recommended(headed: Bundle) -> None:
    histories = [["i1", "no such item", "i2"], []]
    answers = headed.recommend(histories, 3)
    said = headed.answer_chances(histories, answers)
    assert list(said) == ["chance", "label_chance"]
    items = [[item for item, _ in one] for one in answers]
    assert said["label_chance"] == headed.chances(histories, items)
    for chances, answer in zip(said["chance"], answers, strict=True):
        assert chances == sorted(chances, reverse=True)
        assert chances == pytest.approx([1 / (1 + np.exp(-score)) for _, score in answer])


def test_a_model_without_heads_gives_no_chances(tmp_path: Path) -> None:
    plain = Bundle.load(small_bundle(tmp_path / "bundle"))
    assert plain.answer_chances([["i1"]], plain.recommend([["i1"]], 3)) == {}


def test_what_was_not_liked_is_another_history_for_lists_and_chances(headed: Bundle) -> None:
    ask = [["i1", "no such item", "i2"]]
    liked, not_all = [[True, True, True]], [[True, True, False]]
    assert headed.recommend(ask, 3, positive=liked) == headed.recommend(ask, 3)
    assert headed.recommend(ask, 3, positive=not_all) != headed.recommend(ask, 3)
    with pytest.raises(InputError, match="positive"):
        headed.recommend(ask, 3, positive=[[True]])


def test_without_a_time_the_purchase_head_is_asked_now(headed: Bundle) -> None:
    head = headed.loom.purchase
    assert head is not None
    timeless = headed.histories([["i1", "i2"], []])
    now = replace(timeless, times=timeless.times + head.tallies.now, asked_at=timeless.asked_at + head.tallies.now)
    random = np.random.default_rng(0)
    fused, *tables = random.normal(size=(1 + len(head.members), 2, N_ITEMS)).astype(np.float32)
    given = fused, dict(zip(head.members, tables, strict=True))
    found = head.rescore(*given, timeless)
    np.testing.assert_array_equal(found, head.rescore(*given, now))
    nothing_sold = replace(head, tallies=Tallies.of(headed.histories([]), N_ITEMS))
    assert not np.array_equal(found, nothing_sold.rescore(*given, timeless))
    early = replace(timeless, asked_at=timeless.asked_at + 1)  # before anything was sold
    assert not np.array_equal(found, head.rescore(*given, early))
