"""Platt scaling against the line that the labels were drawn by, and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from nightloom.core.calibration import LEAST_SLOPE, Line


def drawn(slope: float, offset: float, rows: int = 40_000, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and labels whose log-odds are slope * score + offset."""
    random = np.random.default_rng(3)
    scores = scale * random.normal(size=rows)
    return scores, random.random(rows) < 1 / (1 + np.exp(-(slope * scores + offset)))


def test_a_line_is_found_again() -> None:
    scores, positive = drawn(1.7, -2)
    found = Line.fit(scores.astype(np.float32), positive)
    assert found.slope == pytest.approx(1.7, abs=0.1)
    assert found.offset == pytest.approx(-2, abs=0.1)


@pytest.mark.parametrize(("slope", "offset", "scale"), [(0.2, -4, 1), (3, 0.5, 1), (0.01, 1, 100), (40, -2, 0.02)])
def test_it_is_the_line_of_greatest_likelihood(slope: float, offset: float, scale: float) -> None:
    scores, positive = drawn(slope, offset, 4000, scale)
    other = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(scores[:, None] / scale, positive)
    found = Line.fit(scores, positive)
    assert found.slope == pytest.approx(float(other.coef_[0, 0]) / scale, rel=1e-3)
    assert found.offset == pytest.approx(float(other.intercept_[0]), abs=1e-3)


def test_scores_that_order_the_wrong_way_keep_the_rate() -> None:
    scores, positive = drawn(-1, -1)
    found = Line.fit(scores + 500, positive)
    assert found.slope == LEAST_SLOPE
    assert (1 / (1 + np.exp(-found(scores + 500)))).mean() == pytest.approx(positive.mean(), abs=1e-6)


@pytest.mark.parametrize("scores", [[0.0, 0.0, 0.0, 1.0], [-9.0, -8.0, 8.0, 9.0]])
def test_labels_that_a_score_tells_apart_give_finite_lines(scores: list[float]) -> None:
    found = Line.fit(np.array(scores), np.array([False, False, True, True]))
    assert np.isfinite([found.slope, found.offset]).all()
    assert found.slope > 0
    assert np.abs(found(np.array(scores))).max() < 100  # no probability is surer than the labels can show


@pytest.mark.parametrize("label", [True, False])
def test_one_label_alone_gives_its_rate(label: bool) -> None:
    found = Line.fit(np.arange(5.0), np.full(5, label))
    assert abs(found(2.0) if label else -found(2.0)) > 10
