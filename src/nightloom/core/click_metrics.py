"""How good probabilities of a click are: their order (AUC), sharpness (log-loss, normalised entropy) and calibration.

scikit-learn gives the same AUC and log-loss, as the tests hold, in two to fifteen times the time: the bootstrap measures a
thousand times. Its calibration curve has no counts, and bins of equal mass only where no probabilities are equal.

Sources: Fawcett, An introduction to ROC analysis, 2006 (AUC as a share of pairs); He et al., Practical Lessons from Predicting Clicks on
Ads at Facebook, ADKDD 2014 (normalised entropy); Naeini, Cooper and Hauskrecht, AAAI 2015, and Nixon et al., Measuring Calibration in
Deep Learning, 2019 (expected calibration error, with bins of equal mass).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nightloom.core.errors import InputError

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
NAMES = ("auc", "log_loss", "ne", "ece")
"""The metrics; of the first more is better, of the others less."""
BINS = 10
SMALLEST = 1e-7
"""Probabilities are kept this far from 0 and 1, so that one wrong certainty costs 16 nats and not all of them."""


def auc(clicked: BoolArray, probability: FloatArray) -> float:
    """Share of pairs of a clicked and an unclicked row in which the clicked one has the higher probability; equal probabilities count half.

    NaN where all rows are clicked, or none.
    """
    clicks, rows = int(clicked.sum()), len(clicked)
    if clicks in (0, rows):
        return float("nan")
    _, place, equal = np.unique(probability, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(equal) - (equal - 1) / 2)[place]  # of equals the mean rank
    return float((ranks[clicked].sum() - clicks * (clicks + 1) / 2) / (clicks * (rows - clicks)))


def losses(clicked: BoolArray, probability: FloatArray) -> FloatArray:
    """Minus the log of the probability given to what happened, in nats, float64 [rows]."""
    kept = np.clip(probability, SMALLEST, 1 - SMALLEST)
    return np.where(clicked, -np.log(kept), -np.log1p(-kept))


def normalised_entropy(clicked: BoolArray, probability: FloatArray) -> float:
    """Log-loss as a share of that of always saying the rows' own click rate; below 1 is better than the rate alone."""
    rate = float(clicked.mean())
    if rate in (0.0, 1.0):
        return float("nan")
    return float(losses(clicked, probability).mean() / -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate)))


@dataclass(frozen=True)
class Curve:
    """Calibration in bins of equal mass: the rows sorted by probability, cut into parts of equal size (give or take one).

    Attributes:
        rows: int64 [bins].
        probability: float64 [bins], mean probability given.
        rate: float64 [bins], share that was clicked.
    """

    rows: NDArray[np.int64]
    probability: FloatArray
    rate: FloatArray


def calibration(clicked: BoolArray, probability: FloatArray, bins: int = BINS) -> Curve:
    """The calibration curve; rows of equal probability keep their order, and fewer rows than bins give a bin each."""
    parts = np.array_split(np.argsort(probability, kind="stable"), max(1, min(bins, len(probability))))
    sizes = np.array([len(part) for part in parts], dtype=np.int64)
    means = [(probability[part].mean(), clicked[part].mean()) for part in parts if len(part)]
    given, rates = np.array(means).reshape(-1, 2).T
    return Curve(sizes[sizes > 0], given, rates)


def calibration_error(clicked: BoolArray, probability: FloatArray, bins: int = BINS) -> float:
    """Expected calibration error: sum over bins of rows_b / rows * |mean probability_b - click rate_b|, bins of equal mass.

    Chance alone makes it larger than 0, the more so the fewer rows a bin has: see `calibration_noise`.
    """
    curve = calibration(clicked, probability, bins)
    return float(curve.rows @ np.abs(curve.probability - curve.rate) / max(1, curve.rows.sum()))


def calibration_noise(probability: FloatArray, bins: int = BINS, draws: int = 500, seed: int = 0) -> float:
    """The mean calibration error of these probabilities if they were true: no model can be measured to beat it on as many rows."""
    random = np.random.default_rng(seed)
    return float(np.mean([calibration_error(random.random(len(probability)) < probability, probability, bins) for _ in range(draws)]))


def measure(clicked: BoolArray, probability: FloatArray) -> dict[str, float]:
    """All of `NAMES`.

    Args:
        clicked: bool [rows].
        probability: float64 [rows], between 0 and 1.

    Raises:
        InputError: there are no rows, or probabilities are missing or not between 0 and 1.
    """
    if not len(clicked):
        raise InputError("clicks: there is no row to measure on. Give the test part more rows.")
    wrong = ~((probability >= 0) & (probability <= 1))
    if wrong.any():
        raise InputError(
            f"clicks: {int(wrong.sum()):,} of {len(probability):,} probabilities are missing or not between 0 and 1, the first "
            f"{probability[wrong][0]}. Hand over probabilities, not scores."
        )
    found = (
        auc(clicked, probability),
        float(losses(clicked, probability).mean()),
        normalised_entropy(clicked, probability),
        calibration_error(clicked, probability),
    )
    return dict(zip(NAMES, found, strict=True))


def intervals(
    clicked: BoolArray,
    probability: FloatArray,
    against: FloatArray | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap over rows (Efron 1979) of each metric, or of the difference to other probabilities of the same rows.

    The interval of the calibration error holds the noise that drawing adds, so it lies rather high.

    Args:
        clicked: bool [rows].
        probability: float64 [rows].
        against: float64 [rows]; where given, intervals are of the metric of `probability` less that of `against`, paired by row.
        confidence: of the intervals.
        resamples: how often rows are drawn; draws without a click are left out.
        seed: of the draws.

    Returns:
        Metric -> (low, high).
    """
    random, found = np.random.default_rng(seed), []
    for _ in range(resamples):
        rows = random.integers(0, len(clicked), len(clicked))
        one = measure(clicked[rows], probability[rows])
        if against is not None:
            other = measure(clicked[rows], against[rows])
            one = {name: one[name] - other[name] for name in NAMES}
        found.append([one[name] for name in NAMES])
    low, high = np.nanquantile(found, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return {name: (float(a), float(b)) for name, a, b in zip(NAMES, low, high, strict=True)}
