"""Moments of scores over the whole catalogue: what makes the scores of different members comparable, query by query.

They come from a full table of scores (`Moments.of`), or in closed form, so that a few candidates can be standardised
without scoring the rest. Needs numpy alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]
FloatArray = NDArray[np.float64]

RESOLUTION = 1e-6
"""A standard deviation below this share of the scores' size is rounding of float32: such scores are all equal."""

BLOCK_ROWS = 1 << 16
"""Item vectors that are held in double precision at once."""


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of each query's scores over the whole catalogue.

    Attributes:
        mean: float64 [n].
        std: float64 [n], of the whole catalogue (not of a sample).
        lowest: float64 [n], the lowest finite score, zero where there is none. An item that can not be ranked (-inf) counts as
            this, in mean and standard deviation too. Without meaning where every item can be ranked.
    """

    mean: FloatArray
    std: FloatArray
    lowest: FloatArray

    @classmethod
    def of(cls, scores: Scores) -> Self:
        """Moments of full tables, float32 [n, items]."""
        finite = np.isfinite(scores)
        lowest = scores.min(1, where=finite, initial=np.inf)
        lowest = np.where(np.isfinite(lowest), lowest, 0)
        filled = scores if finite.all() else np.where(finite, scores, lowest[:, None])
        mean = filled.mean(1, dtype=np.float64)
        centre = mean.astype(np.float32)
        spread = filled - centre[:, None]
        variance = np.square(spread, out=spread).mean(1, dtype=np.float64) - (mean - centre) ** 2
        return cls(mean, np.sqrt(np.maximum(variance, 0)), lowest.astype(np.float64))

    @classmethod
    def joined(cls, parts: Iterable[Self]) -> Self:
        """Moments of several runs of queries, one after the other."""
        listed = list(parts)
        return cls(*(np.concatenate([getattr(one, name) for one in listed]) for name in cls.__dataclass_fields__))

    @property
    def varies(self) -> NDArray[np.bool_]:
        """Whether a query's scores are not all equal, bool [n]."""
        found: NDArray[np.bool_] = self.std > RESOLUTION * np.hypot(self.mean, self.std)
        return found

    def standardise(self, scores: Scores) -> Scores:
        """Scores less their mean, divided by their standard deviation (by 1 where all scores are equal).

        -inf (can not be ranked) counts as the lowest. NaN stays NaN: a broken score must not look like a low one.

        Args:
            scores: float32 [n, k], of the whole catalogue or of some items.
        """
        unranked = np.isneginf(scores)
        filled = np.where(unranked, self.lowest[:, None].astype(np.float32), scores) if unranked.any() else scores
        scale = np.where(self.varies, self.std, 1)
        centre = self.mean.astype(np.float32)
        found: Scores = filled - centre[:, None]
        found /= scale[:, None].astype(np.float32)
        found -= ((self.mean - centre) / scale)[:, None].astype(np.float32)  # what rounding the mean has left
        return found


class VectorMoments:
    """Closed form for inner products: of scores u·v over all item vectors v, the mean is u·mean(v), the variance u' Cov(v) u.

    Args:
        vectors: float32 [items, dim].
    """

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        n, dim = vectors.shape
        self.mean: FloatArray = vectors.mean(0, dtype=np.float64) if n else np.zeros(dim)
        products = np.zeros((dim, dim))
        for first in range(0, n, BLOCK_ROWS):
            part = vectors[first : first + BLOCK_ROWS] - self.mean
            products += part.T @ part
        self.covariance: FloatArray = products / max(n, 1)

    def __call__(self, users: NDArray[Any]) -> Moments:
        """Moments of each user vector's scores; every item can be ranked.

        Args:
            users: float [n, dim].
        """
        users = users.astype(np.float64)
        variance = np.einsum("nd,nd->n", users @ self.covariance, users)
        return Moments(users @ self.mean, np.sqrt(np.maximum(variance, 0)), np.zeros(len(users)))
