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

probabilities = st.integers(0, 20).map(lambda twentieth: twentieth / 20)  # coarse, so that ties are many
rows = st.lists(st.tuples(st.booleans(), probabilities), min_size=2, max_size=60).filter(lambda given: len({one[0] for one in given}) == 2)


def columns(given: list[tuple[bool, float]]) -> tuple[np.ndarray, np.ndarray]:
    clicked, probability = zip(*given, strict=True)
    return np.array(clicked), np.array(probability)


@given(rows)
def test_auc_and_log_loss_are_those_of_scikit_learn(given: list[tuple[bool, float]]) -> None:
    clicked, probability = columns(given)
    found = clicks.measure(clicked, probability)
    assert found["auc"] == pytest.approx(roc_auc_score(clicked, probability))
    kept = np.clip(probability, clicks.SMALLEST, 1 - clicks.SMALLEST)
    assert found["log_loss"] == pytest.approx(log_loss(clicked, kept))
    base = log_loss(clicked, np.full(len(clicked), clicked.mean()))
    assert found["ne"] == pytest.approx(found["log_loss"] / base)
    assert clicks.normalised_entropy(clicked, np.full(len(clicked), clicked.mean())) == pytest.approx(1)


@given(st.lists(st.booleans(), min_size=40, max_size=40), st.permutations(range(40)))
def test_the_curve_is_that_of_scikit_learn_where_chances_differ(given: list[bool], places: list[int]) -> None:
    clicked, probability = np.array(given), (np.array(places) + 0.5) / 40
    curve = clicks.calibration(clicked, probability, bins=8)
    rate, mean = calibration_curve(clicked, probability, n_bins=8, strategy="quantile")
    np.testing.assert_allclose(curve.rate, rate)
    np.testing.assert_allclose(curve.probability, mean)
    assert curve.rows.tolist() == [5] * 8
    assert clicks.calibration_error(clicked, probability, bins=8) == pytest.approx(np.abs(rate - mean).mean())


@given(rows)
def test_what_holds_for_all_chances(given: list[tuple[bool, float]]) -> None:
    clicked, probability = columns(given)
    curve = clicks.calibration(clicked, probability)
    assert curve.rows.sum() == len(clicked)
    assert np.ptp(curve.rows) <= 1
    assert (np.diff(curve.probability) >= -1e-12).all()
    assert 0 <= clicks.calibration_error(clicked, probability) <= 1
    assert clicks.auc(clicked, probability) == pytest.approx(1 - clicks.auc(~clicked, probability))
    assert clicks.auc(clicked, probability**3) == pytest.approx(clicks.auc(clicked, probability))  # the order alone counts


def test_true_chances_have_no_more_calibration_error_than_noise() -> None:
    random = np.random.default_rng(0)
    probability = random.beta(1, 4, 20_000)
    clicked = random.random(len(probability)) < probability
    assert clicks.calibration_error(clicked, probability) < 0.01
    assert clicks.calibration_error(clicked, np.clip(2 * probability, 0, 1)) > 0.1
    few = probability[:400]
    assert clicks.calibration_noise(few) > 3 * clicks.calibration_noise(probability, draws=50)


def test_intervals_hold_the_metric_and_pairs_see_small_differences() -> None:
    random = np.random.default_rng(1)
    probability = random.beta(2, 5, 1500)
    clicked = random.random(len(probability)) < probability
    worse = np.clip(probability + random.normal(0, 0.1, len(probability)), 0.01, 0.99)
    alone = clicks.intervals(clicked, probability, resamples=200)
    for name in ("auc", "log_loss", "ne"):
        low, high = alone[name]
        assert low < clicks.measure(clicked, probability)[name] < high
    apart = clicks.intervals(clicked, probability, worse, resamples=200)
    assert apart["auc"][0] > 0 > apart["log_loss"][1]
    same = clicks.intervals(clicked, probability, probability, resamples=50)
    assert set(same.values()) == {(0.0, 0.0)}


def test_one_kind_of_row_has_no_auc_and_scores_are_refused() -> None:
    assert np.isnan(clicks.measure(np.ones(3, dtype=bool), np.full(3, 0.5))["auc"])
    with pytest.raises(InputError, match="1 of 2 probabilities"):
        clicks.measure(np.array([True, False]), np.array([0.5, 1.5]))
    with pytest.raises(InputError, match="no row"):
        clicks.measure(np.zeros(0, dtype=bool), np.zeros(0))
