"""Click metrics against scikit-learn and against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss, roc_auc_score

from nightloom.core import click_metrics as clicks
from nightloom.core.errors import InputError

chances = st.integers(0, 20).map(lambda twentieth: twentieth / 20)  # coarse, so that ties are many
rows = st.lists(st.tuples(st.booleans(), chances), min_size=2, max_size=60).filter(lambda given: len({one[0] for one in given}) == 2)


def columns(given: list[tuple[bool, float]]) -> tuple[np.ndarray, np.ndarray]:
    clicked, chance = zip(*given, strict=True)
    return np.array(clicked), np.array(chance)


@given(rows)
def test_auc_and_log_loss_are_those_of_scikit_learn(given: list[tuple[bool, float]]) -> None:
    clicked, chance = columns(given)
    found = clicks.measure(clicked, chance)
    assert found["auc"] == pytest.approx(roc_auc_score(clicked, chance))
    kept = np.clip(chance, clicks.SMALLEST, 1 - clicks.SMALLEST)
    assert found["log_loss"] == pytest.approx(log_loss(clicked, kept))
    base = log_loss(clicked, np.full(len(clicked), clicked.mean()))
    assert found["ne"] == pytest.approx(found["log_loss"] / base)
    assert clicks.normalised_entropy(clicked, np.full(len(clicked), clicked.mean())) == pytest.approx(1)


@given(st.lists(st.booleans(), min_size=40, max_size=40), st.permutations(range(40)))
def test_the_curve_is_that_of_scikit_learn_where_chances_differ(given: list[bool], places: list[int]) -> None:
    clicked, chance = np.array(given), (np.array(places) + 0.5) / 40
    curve = clicks.calibration(clicked, chance, bins=8)
    rate, mean = calibration_curve(clicked, chance, n_bins=8, strategy="quantile")
    np.testing.assert_allclose(curve.rate, rate)
    np.testing.assert_allclose(curve.chance, mean)
    assert curve.rows.tolist() == [5] * 8
    assert clicks.calibration_error(clicked, chance, bins=8) == pytest.approx(np.abs(rate - mean).mean())


@given(rows)
def test_what_holds_for_all_chances(given: list[tuple[bool, float]]) -> None:
    clicked, chance = columns(given)
    curve = clicks.calibration(clicked, chance)
    assert curve.rows.sum() == len(clicked)
    assert np.ptp(curve.rows) <= 1
    assert (np.diff(curve.chance) >= -1e-12).all()
    assert 0 <= clicks.calibration_error(clicked, chance) <= 1
    assert clicks.auc(clicked, chance) == pytest.approx(1 - clicks.auc(~clicked, chance))
    assert clicks.auc(clicked, chance**3) == pytest.approx(clicks.auc(clicked, chance))  # the order alone counts


def test_true_chances_have_no_more_calibration_error_than_noise() -> None:
    random = np.random.default_rng(0)
    chance = random.beta(1, 4, 20_000)
    clicked = random.random(len(chance)) < chance
    assert clicks.calibration_error(clicked, chance) < 0.01
    assert clicks.calibration_error(clicked, np.clip(2 * chance, 0, 1)) > 0.1
    few = chance[:400]
    assert clicks.calibration_noise(few) > 3 * clicks.calibration_noise(chance, draws=50)


def test_intervals_hold_the_metric_and_pairs_see_small_differences() -> None:
    random = np.random.default_rng(1)
    chance = random.beta(2, 5, 1500)
    clicked = random.random(len(chance)) < chance
    worse = np.clip(chance + random.normal(0, 0.1, len(chance)), 0.01, 0.99)
    alone = clicks.intervals(clicked, chance, resamples=200)
    for name in ("auc", "log_loss", "ne"):
        low, high = alone[name]
        assert low < clicks.measure(clicked, chance)[name] < high
    apart = clicks.intervals(clicked, chance, worse, resamples=200)
    assert apart["auc"][0] > 0 > apart["log_loss"][1]
    same = clicks.intervals(clicked, chance, chance, resamples=50)
    assert set(same.values()) == {(0.0, 0.0)}


def test_one_kind_of_row_has_no_auc_and_scores_are_refused() -> None:
    assert np.isnan(clicks.measure(np.ones(3, dtype=bool), np.full(3, 0.5))["auc"])
    with pytest.raises(InputError, match="1 of 2 chances"):
        clicks.measure(np.array([True, False]), np.array([0.5, 1.5]))
    with pytest.raises(InputError, match="no row"):
        clicks.measure(np.zeros(0, dtype=bool), np.zeros(0))
