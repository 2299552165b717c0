"""Platt scaling: from scores to log-odds that are true. Needs numpy alone, since training workers fit it.

Platt, Probabilistic outputs for support vector machines, 1999, without his smoothed labels. Fitted by Newton's method with step
halving: Lin, Lin and Weng, A note on Platt's probabilistic outputs for support vector machines, Machine Learning 68, 2007.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

STEPS = 50
CLOSE = 1e-10
"""A step that lowers the mean loss by less is the last. Where scores tell the labels apart the likeliest line is infinitely steep; this
ends at log-odds of some twenty."""
LEAST_SLOPE = 1e-3
"""So that a calibration never turns the order of the scores around."""


@dataclass(frozen=True)
class Line:
    """Log-odds that grow evenly with a score: slope * score + offset.

    Attributes:
        slope: log-odds for each unit of the score; 1 / temperature.
        offset: log-odds at score 0.
    """

    slope: float
    offset: float

    def __call__(self, scores: NDArray[Any]) -> NDArray[Any]:
        """Log-odds, of the shape of the scores."""
        found: NDArray[Any] = self.slope * scores
        found += self.offset  # in place: tables of scores are large
        return found

    @classmethod
    def fit(cls, scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> Self:
        """The line of greatest likelihood whose slope is at least `LEAST_SLOPE`.

        Args:
            scores: float [rows], finite.
            positive: bool [rows]; without both labels the log-odds are those of the rate, kept a millionth from 0 and 1.
        """
        x, y = scores.astype(np.float64), positive.astype(np.float64)
        rate = float(np.clip(y.mean(), 1e-6, 1 - 1e-6))
        level = float(np.log(rate / (1 - rate)))
        if rate in (1e-6, 1 - 1e-6):
            return cls(LEAST_SLOPE, level)
        centre, spread = float(x.mean()), float(x.std()) or 1.0
        slope, offset = _newton(np.stack([(x - centre) / spread, np.ones_like(x)]), np.zeros_like(x), y, np.array([0.0, level]))
        slope, offset = slope / spread, offset - slope * centre / spread
        if slope < LEAST_SLOPE:
            slope = LEAST_SLOPE
            (offset,) = _newton(np.ones((1, len(x))), slope * x, y, np.array([level - slope * centre]))
        return cls(float(slope), float(offset))


def _newton(columns: FloatArray, base: FloatArray, y: FloatArray, weights: FloatArray) -> FloatArray:
    """Weights of greatest likelihood of log-odds `weights @ columns + base`.

    Args:
        columns: float64 [weights, rows].
        base: float64 [rows].
        y: float64 [rows], 0 or 1.
        weights: float64 [weights], where to start.
    """

    def loss(log_odds: FloatArray) -> float:
        return float((np.logaddexp(0, log_odds) - y * log_odds).mean())

    log_odds = weights @ columns + base
    for _ in range(STEPS):
        probability = 1 / (1 + np.exp(-np.clip(log_odds, -30, 30)))
        curvature = (columns * (probability * (1 - probability) + 1e-12)) @ columns.T
        step = np.linalg.solve(curvature + 1e-9 * np.eye(len(weights)), columns @ (y - probability))
        before = loss(log_odds)
        while np.abs(step).sum() > CLOSE and loss((weights + step) @ columns + base) > before:
            step = step / 2
        weights = weights + step
        log_odds = weights @ columns + base
        if before - loss(log_odds) <= CLOSE:
            break
    return weights
