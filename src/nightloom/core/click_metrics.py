"""How good chances of a click are: do they order the rows (AUC), are they sharp (log-loss, normalised entropy), are they true.

Sources: Fawcett, An introduction to ROC analysis, 2006 (AUC as a share of pairs); He et al., Practical Lessons from Predicting Clicks on
Ads at Facebook, ADKDD 2014 (normalised entropy); Naeini, Cooper and Hauskrecht, AAAI 2015, and Nixon et al., Measuring Calibration in
Deep Learning, 2019 (expected calibration error, with bins of equal mass).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from nightloom.core.errors import InputError

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
NAMES = ("auc", "log_loss", "ne", "ece")
"""The metrics; of the first more is better, of the others less."""
BINS = 10
SMALLEST = 1e-7
"""Chances are kept this far from 0 and 1, so that one wrong certainty costs 16 nats and not all of them."""


def auc(clicked: BoolArray, chance: FloatArray) -> float:
    """Share of pairs of a clicked and an unclicked row in which the clicked one has the higher chance; equal chances count half.

    NaN where all rows are clicked, or none.
    """
    clicks, rows = int(clicked.sum()), len(clicked)
    if clicks in (0, rows):
        return float("nan")
    ranks = rankdata(chance)
    return float((ranks[clicked].sum() - clicks * (clicks + 1) / 2) / (clicks * (rows - clicks)))


def losses(clicked: BoolArray, chance: FloatArray) -> FloatArray:
    """Minus the log of the chance given to what happened, in nats, float64 [rows]."""
    kept = np.clip(chance, SMALLEST, 1 - SMALLEST)
    return np.where(clicked, -np.log(kept), -np.log1p(-kept))


def normalised_entropy(clicked: BoolArray, chance: FloatArray) -> float:
    """Log-loss as a share of that of always saying the rows' own click rate; below 1 is better than knowing nothing of a row."""
    rate = float(clicked.mean())
    if rate in (0.0, 1.0):
        return float("nan")
    return float(losses(clicked, chance).mean() / -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate)))


@dataclass(frozen=True)
class Curve:
    """Calibration in bins of equal mass: the rows sorted by chance, cut into parts of as many rows each (give or take one).

    Attributes:
        rows: int64 [bins].
        chance: float64 [bins], mean chance given.
        rate: float64 [bins], share that was clicked.
    """

    rows: NDArray[np.int64]
    chance: FloatArray
    rate: FloatArray


def calibration(clicked: BoolArray, chance: FloatArray, bins: int = BINS) -> Curve:
    """The calibration curve; rows of equal chance stay in the order in which they are, fewer rows than bins give a bin each."""
    parts = np.array_split(np.argsort(chance, kind="stable"), max(1, min(bins, len(chance))))
    sizes = np.array([len(part) for part in parts], dtype=np.int64)
    means = [(chance[part].mean(), clicked[part].mean()) for part in parts if len(part)]
    given, rates = np.array(means).reshape(-1, 2).T
    return Curve(sizes[sizes > 0], given, rates)


def calibration_error(clicked: BoolArray, chance: FloatArray, bins: int = BINS) -> float:
    """Expected calibration error: sum over bins of rows_b / rows * |mean chance_b - click rate_b|, bins of equal mass.

    Chance alone makes it larger than 0, the more so the fewer rows a bin has: see `calibration_noise`.
    """
    curve = calibration(clicked, chance, bins)
    return float(curve.rows @ np.abs(curve.chance - curve.rate) / max(1, curve.rows.sum()))


def calibration_noise(chance: FloatArray, bins: int = BINS, draws: int = 500, seed: int = 0) -> float:
    """The mean calibration error of these very chances if they were true: what no model of as many rows can be measured to beat."""
    random = np.random.default_rng(seed)
    return float(np.mean([calibration_error(random.random(len(chance)) < chance, chance, bins) for _ in range(draws)]))


def measure(clicked: BoolArray, chance: FloatArray) -> dict[str, float]:
    """All of `NAMES`.

    Args:
        clicked: bool [rows].
        chance: float64 [rows], between 0 and 1.

    Raises:
        InputError: there are no rows, or chances are missing or not between 0 and 1.
    """
    if not len(clicked):
        raise InputError("clicks: there is no row to measure on. Give the test part more rows.")
    wrong = ~((chance >= 0) & (chance <= 1))
    if wrong.any():
        raise InputError(
            f"clicks: {int(wrong.sum()):,} of {len(chance):,} chances are missing or not between 0 and 1, the first "
            f"{chance[wrong][0]}. Hand over chances, not scores."
        )
    found = (
        auc(clicked, chance),
        float(losses(clicked, chance).mean()),
        normalised_entropy(clicked, chance),
        calibration_error(clicked, chance),
    )
    return dict(zip(NAMES, found, strict=True))


def intervals(
    clicked: BoolArray,
    chance: FloatArray,
    against: FloatArray | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap over rows (Efron 1979) of each metric, or of the difference to other chances of the same rows.

    The interval of the calibration error holds the noise that drawing adds, so it lies rather high.

    Args:
        clicked: bool [rows].
        chance: float64 [rows].
        against: float64 [rows]; where given, intervals are of the metric of `chance` less that of `against`, paired by row.
        confidence: of the intervals.
        resamples: how often rows are drawn; draws without a click are left out.
        seed: of the draws.

    Returns:
        Metric -> (low, high).
    """
    random, found = np.random.default_rng(seed), []
    for _ in range(resamples):
        rows = random.integers(0, len(clicked), len(clicked))
        one = measure(clicked[rows], chance[rows])
        if against is not None:
            other = measure(clicked[rows], against[rows])
            one = {name: one[name] - other[name] for name in NAMES}
        found.append([one[name] for name in NAMES])
    low, high = np.nanquantile(found, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return {name: (float(a), float(b)) for name, a, b in zip(NAMES, low, high, strict=True)}
