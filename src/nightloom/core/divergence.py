"""How far two distributions are apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

PRIOR = 0.5
"""Added to every count, so that an empty bin is rare rather than impossible (Jeffreys' prior of a multinomial)."""


def shares(counts: ArrayLike) -> NDArray[np.float64]:
    """Counts as shares, each above zero."""
    smoothed = np.asarray(counts, dtype=np.float64) + PRIOR
    return smoothed / smoothed.sum()


def psi(before: ArrayLike, now: ArrayLike) -> float:
    """Population stability index, sum of (q - p) ln(q / p): 0 for equal shares; common wisdom calls .25 a large shift.

    It is the symmetric Kullback-Leibler divergence (Jeffreys 1946). With n and m counts in k bins, equal shares give about
    (k - 1)(1 / n + 1 / m) by chance.

    Args:
        before: counts by bin.
        now: counts of the same bins.
    """
    p, q = shares(before), shares(now)
    return float(((q - p) * np.log(q / p)).sum())


def jensen_shannon(before: ArrayLike, now: ArrayLike) -> float:
    """Jensen-Shannon divergence in bits, from 0 (equal) to 1 (nothing in common); Lin 1991.

    Args:
        before: counts by bin.
        now: counts of the same bins.
    """
    p, q = shares(before), shares(now)
    middle = (p + q) / 2
    return float((p * np.log2(p / middle) + q * np.log2(q / middle)).sum() / 2)
