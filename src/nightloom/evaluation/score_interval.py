"""An interval of a mean paired difference that holds where few users differ, and what it could show.

A percentile interval collapses where few users differ: with none that lost there is nothing to draw a loss from. The score interval of
a count (Wilson 1927; of a rare event counted k times it ends at k + z^2/2 + z sqrt(k + z^2/4)) does not: it allows for losses that were
not seen. Here the count is a sum of differences. Q is the sum of their squares about their mean, and s the size of a typical one.
The half width is (s z^2/2 + z sqrt(Q + s^2 z^2/4)) / n. Where many differ it is the normal interval's.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
EXACT = 12
"""Differing users up to which every assignment of signs is tried."""


@dataclass(frozen=True)
class Spread:
    """What a paired difference is spread by.

    Attributes:
        users: number of users.
        squares: sum of the squared differences.
        total: sum of the differences.
        size: size of a typical difference: what a hit is worth, or more where differences are larger.
    """

    users: int
    squares: float
    total: float
    size: float

    @classmethod
    def of(cls, a: FloatArray, b: FloatArray) -> Spread:
        """Of two runs' metric, float64 [users] each, over the same users."""
        apart = a - b
        squares, sizes = float((apart**2).sum()), float(np.abs(apart).sum())
        hits = np.concatenate([a[a > 0], b[b > 0]])
        size = max(squares / sizes if sizes else 0.0, float(hits.mean()) if len(hits) else 1.0)
        return cls(len(a), squares, float(apart.sum()), size)

    def half_width(self, confidence: float) -> float:
        """Half the interval's width, in the metric's own unit."""
        return self._half(max(self.squares - self.total**2 / self.users, 0.0), confidence)

    def probability(self, margin: float, confidence: float) -> float:
        """Probability that the interval of an equal run, whose differences are as large, lies above -margin, in the metric's own unit."""
        room = margin - self._half(self.squares, confidence)
        error = self.squares**0.5 / self.users
        return NormalDist().cdf(room / error) if error else float(room >= 0)

    def _half(self, squares: float, confidence: float) -> float:
        z = NormalDist().inv_cdf((1 + confidence) / 2)
        return (self.size * z * z / 2 + z * (squares + (self.size * z) ** 2 / 4) ** 0.5) / self.users


def loss_p_value(apart: FloatArray) -> float:
    """Probability of a sum of differences as low as this if each user's sign were drawn: the paired randomisation test (Fisher 1935).

    It is exact for two runs that differ by chance alone, however few users differ; beyond `EXACT` users its normal limit is taken.

    Args:
        apart: float64 [users], run a less run b.
    """
    differing = apart[apart != 0]
    if not len(differing):
        return 1.0
    total = float(differing.sum())
    if len(differing) <= EXACT:
        signs = 1 - 2 * ((np.arange(2 ** len(differing))[:, None] >> np.arange(len(differing))) & 1)
        return float((signs @ np.abs(differing) <= total + 1e-12).mean())
    return NormalDist().cdf(total / float(np.sqrt((differing**2).sum())))


def holm(probabilities: list[float], level: float) -> list[bool]:
    """Which hypotheses fall when the probability that any true one falls is kept to `level` (Holm 1979)."""
    fallen = [False] * len(probabilities)
    for place, index in enumerate(sorted(range(len(probabilities)), key=probabilities.__getitem__)):
        if probabilities[index] > level / (len(probabilities) - place):
            break
        fallen[index] = True
    return fallen
