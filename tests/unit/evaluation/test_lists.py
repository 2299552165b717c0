"""List measures on lists small enough to work out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightloom.core.sequences import Histories
from nightloom.evaluation import lists
from nightloom.evaluation.slices import item_slices

TAIL = ("arp", "aplt", "mid_exposure", "tail_exposure", "tail_items")
POPULARITY = np.array([8, 4, 2, 2, 0])
SOME = np.array([[0, 1], [0, -1]])


def test_coverage_counts_items_shown_to_anyone() -> None:
    assert lists.coverage(SOME, 5) == pytest.approx(2 / 5)


def test_novelty_is_the_mean_surprise_of_an_item() -> None:
    even = np.full(8, 3)
    assert lists.novelty(np.array([[1, 2], [3, 4]]), even) == pytest.approx(3)
    assert lists.novelty(np.array([[4]]), POPULARITY) > lists.novelty(np.array([[0]]), POPULARITY)
    assert np.isfinite(lists.novelty(np.array([[4]]), POPULARITY))


def test_popularity_bias_compares_with_what_the_same_users_had() -> None:
    histories = Histories.of_items([[1, 1], [2]])  # means 4 and 2
    assert lists.popularity_bias(np.array([[1], [2]]), histories, POPULARITY) == pytest.approx(0)
    assert lists.popularity_bias(np.array([[0], [1]]), histories, POPULARITY) == pytest.approx(1)
    assert lists.popularity_bias(SOME, Histories.of_items([[], []]), POPULARITY) is None
    no_list = np.array([[1], [-1]])
    assert lists.popularity_bias(no_list, histories, POPULARITY) == pytest.approx(0)


def test_gini_ends() -> None:
    assert lists.gini(np.array([[0, 1], [2, 3]]), 4) == pytest.approx(0)
    assert lists.gini(np.array([[0], [0]]), 4) == pytest.approx(3 / 4)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_gini_is_half_the_relative_mean_difference(shown: list[int]) -> None:
    exposure = np.bincount(shown, minlength=10)
    expected = np.abs(exposure[:, None] - exposure).mean() / (2 * exposure.mean())
    assert lists.gini(np.array([shown]), 10) == pytest.approx(expected)


def test_popular_and_rare_items_as_worked_out_by_hand() -> None:
    """Of 16 events item 0 has 8: head. Items 1 and 2 are mid (12 and 14 of 16 are covered before), item 3 tail, item 4 unseen."""
    assert item_slices(POPULARITY).tolist() == ["head items", "mid items", "mid items", "tail items", "unseen items"]
    found = lists.of_the_tail(np.array([[0, 3], [4, -1], [-1, -1]]), POPULARITY)
    second = 1 / np.log2(3)
    assert found == pytest.approx(
        {
            "arp": (5 + 0) / 2,
            "aplt": (0.5 + 1) / 2,
            "mid_exposure": 0,
            "tail_exposure": (1 + second) / (2 + second),
            "tail_items": 2,
        }
    )
    assert lists.of_the_tail(np.array([[1, 0]]), POPULARITY)["mid_exposure"] == pytest.approx(1 / (1 + second))


def test_all_at_once_names_every_depth_and_leaves_out_what_has_no_meaning() -> None:
    found = lists.measure(SOME, Histories.of_items([[0], [1]]), POPULARITY)
    assert set(found) == {f"{stem}_at_{k}" for stem in ("coverage", "novelty", "popularity_bias", "gini", *TAIL) for k in (5, 10, 20)}
    assert lists.measure(np.full((1, 2), -1), Histories.of_items([[0]]), POPULARITY) == {}
