"""Baseline ease: a linear model of each item from all the others, in closed form."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from nightloom.core.errors import InputError, TrainingError
from nightloom.core.recommender import Recommender
from nightloom.core.sequences import Histories
from nightloom.models.baselines.interactions import BLOCK_CELLS, interactions, popularity_prior
from nightloom.models.scorers.popularity import positive_counts

MOST_ITEMS = 20_000
"""Items that the dense weights may join: 1.5 GiB of float32, and minutes on one core."""


class EASE(Recommender):
    """Embarrassingly shallow autoencoder (Steck 2019, Embarrassingly shallow autoencoders for sparse data).

    With P the inverse of X'X + L2 * identity, the weights are B = -P / diag(P), zero on the diagonal: the least-squares
    reconstruction of every column of X from the others. All is float32; the inverse is made in place.

    Args:
        l2: weight on the squared weights. On MovieLens-100K's validation part NDCG@10 was .088 for 100, .084 for 200 and
            .079 for 500 (leave-one-out), .302, .307 and .308 (temporal).
    """

    family: ClassVar[str] = "ease"

    def __init__(self, l2: float = 200.0) -> None:
        self.l2 = l2

    def fit(self, train: Histories, n_items: int) -> Self:
        """Solve for the weights between items that training has seen.

        Raises:
            InputError: they are more than `MOST_ITEMS`.
        """
        self.n_items = n_items
        self.counts = positive_counts(train, n_items)
        self.seen = np.flatnonzero(self.counts)
        if len(self.seen) > MOST_ITEMS:
            raise InputError(
                f"family ease: {len(self.seen):,} items have positive events, and its dense weights between all pairs of items "
                f"(float32, {4 * len(self.seen) ** 2 / 2**30:,.1f} GiB) are made for at most {MOST_ITEMS:,}. Leave ease out of "
                "evaluation.baselines or --models, or raise prepare.min_item_events."
            )
        self.weights = _inverse(self._gram(train))
        self.weights /= -np.diag(self.weights).copy()
        np.fill_diagonal(self.weights, 0)
        return self

    def scores(self, histories: Histories) -> NDArray[np.float32]:
        """What the history's items say of each other one, float32 [len(histories), n_items]; -inf for items never seen."""
        out = np.tile(popularity_prior(self.counts), (len(histories), 1))
        out[:, self.seen] += interactions(histories, self.n_items)[:, self.seen] @ self.weights
        return out

    def save(self, folder: Path) -> None:
        """Write `ease.npz`."""
        np.savez(folder / "ease.npz", counts=self.counts, weights=self.weights, l2=self.l2)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        with np.load(folder / "ease.npz", allow_pickle=False) as arrays:
            model = cls(float(arrays["l2"]))
            model.counts, model.weights = arrays["counts"], arrays["weights"]
        model.n_items, model.seen = len(model.counts), np.flatnonzero(model.counts)
        return model

    def _gram(self, train: Histories) -> NDArray[np.float32]:
        """X'X + L2 * identity over the seen items, float32, made a block of columns at a time."""
        matrix = interactions(train, self.n_items)[:, self.seen].tocsc()
        size = len(self.seen)
        gram = np.empty((size, size), dtype=np.float32, order="F")
        step = max(1, BLOCK_CELLS // max(size, 1))
        for first in range(0, size, step):
            gram[:, first : first + step] = (matrix.T @ matrix[:, first : first + step]).toarray()
        gram[np.arange(size), np.arange(size)] += np.float32(self.l2)
        return gram


def _inverse(gram: NDArray[np.float32]) -> NDArray[np.float32]:
    """Inverse of a symmetric positive definite matrix by Cholesky, in the memory of that matrix."""
    if not len(gram):
        return gram
    factor, failed = lapack.spotrf(gram, lower=1, overwrite_a=1)
    inverse, broken = lapack.spotri(factor, lower=1, overwrite_c=1)
    if failed or broken:
        raise TrainingError("baseline ease: X'X + l2 is not positive definite in float32. Raise its l2.")
    step = max(1, BLOCK_CELLS // len(inverse))
    for first in range(0, len(inverse), step):  # LAPACK fills the lower half
        last = first + step
        inverse[first:last, last:] = inverse[last:, first:last].T
        square = inverse[first:last, first:last]
        square[:] = np.tril(square) + np.tril(square, -1).T
    return inverse
