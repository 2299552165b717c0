"""What is expected of items that nobody has acted on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nightloom.core.sequences import Histories
from nightloom.models.scorers.als import ALS
from nightloom.models.scorers.newcomers import Newcomers, expected
from nightloom.models.scorers.popularity import Popularity
from nightloom.models.scorers.registry import expect, fit_scorers
from nightloom.models.sequential.content_fusion import ItemContent
from tests.serving_bundle import known_histories

N, WIDTH, COLD = 150, 12, 20


def content(*, has_text: np.ndarray | None = None) -> ItemContent:
    """A catalogue whose last items nobody knows; the first of those has the text of item 5."""
    text = np.random.default_rng(0).normal(size=(N, WIDTH)).astype(np.float32)
    text[N - COLD] = text[5]
    there = np.ones(N, dtype=bool) if has_text is None else has_text
    return ItemContent.build(None, text, there, np.arange(1, N + 1))


def test_a_mean_that_near_texts_dominate_and_nothing_shrinks() -> None:
    values = np.array([[10.0, 1.0], [0.0, 3.0]])
    first, second = (cosine**4 / (1.01 - cosine) ** 2 for cosine in (0.6, 0.3))
    assert expected(np.array([0.36, 0.09]), values) == pytest.approx((first * values[0] + second * values[1]) / (first + second + 0.01))
    assert expected(np.zeros(0), values[:0]).tolist() == [0, 0]
    far = 0.1**4 / 0.91**2
    assert expected(np.array([0.01]), values[:1])[0] == pytest.approx(10 * far / (far + 0.01)), "far texts say little"


def test_of_a_copy_is_expected_what_is_known_of_the_original_however_many_others_are_near() -> None:
    cosines, values = np.full(50, 0.7**2), np.ones((50, 1))
    cosines[7], values[7] = 1 + 1e-7, 5  # a cosine of single precision may be more than 1
    assert expected(cosines, values)[0] == pytest.approx(5, rel=0.02)


def test_neighbours_are_known_items_alone() -> None:
    known = np.arange(N) < N - COLD
    there = np.ones(N, dtype=bool)
    there[[7, N - 1]] = False
    one = content(has_text=there)
    found = Newcomers.find(one.text, one.has_text, known)
    assert found.items.tolist() == list(range(N - COLD, N - 1)), "without a text nothing is expected"
    assert known[found.neighbours].all()
    assert 7 not in found.neighbours
    first = dict(zip(found.neighbours[: found.offsets[1]].tolist(), found.cosines[: found.offsets[1]].tolist(), strict=True))
    assert first[5] == pytest.approx(1, abs=1e-5)
    assert max(value for item, value in first.items() if item != 5) < 0.99


def test_scorers_expect_and_keep_what_they_expect(tmp_path: Path) -> None:
    train, catalogue = known_histories(), content()
    scorers = fit_scorers(["als", "popularity", "trend", "graph"], train, catalogue)
    als, popularity, trend = scorers["als"], scorers["popularity"], scorers["trend"]
    assert isinstance(als, ALS)
    assert isinstance(popularity, Popularity)
    alone, counted = ALS().fit(train, N), Popularity().fit(train, N)
    known = counted.counts > 0
    np.testing.assert_array_equal(als.vectors[known], alone.vectors[known])
    np.testing.assert_array_equal(als.gram, alone.gram)
    np.testing.assert_array_equal(popularity.base.values[known], counted.base.values[known])
    copy = N - COLD
    assert popularity.base.values[copy] == pytest.approx(popularity.base.values[5], rel=0.35)
    assert popularity.base.values[copy] > 0
    similar = als.vectors[copy] @ als.vectors[5] / np.linalg.norm(als.vectors[copy]) / np.linalg.norm(als.vectors[5])
    assert similar > 0.8
    histories = Histories.of_items([[3, 5, copy], []])
    for one in (als, popularity, trend):
        one.save(tmp_path)
        again = type(one).load(tmp_path)
        np.testing.assert_allclose(again.scores(histories), one.scores(histories), atol=1e-6)
        candidates = np.tile(np.arange(N), (2, 1))
        scores, moments = one.candidate_scores(histories, candidates)
        np.testing.assert_allclose(moments.mean, scores.mean(1), atol=1e-5)


def test_a_model_that_reads_no_text_expects_nothing() -> None:
    scorers = fit_scorers(["als", "popularity"], known_histories(), content(), reads_text=False)
    for one in scorers.values():
        assert not one.scores(Histories.of_items([[3]]))[0, N - COLD :].any()


def test_an_item_that_somebody_acted_on_is_expected_no_more() -> None:
    catalogue, popularity = content(), Popularity().fit(Histories.of_items([[5], [5], [N - 2]]), N)
    expect([popularity], catalogue)
    assert popularity.base.values[N - 2] == pytest.approx(np.log1p(1))
    assert popularity.expected[N - 2] == 0
    assert popularity.base.values[N - COLD] > np.log1p(1)
