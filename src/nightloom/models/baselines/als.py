"""Baseline als: matrix factorisation of implicit feedback by alternating least squares."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from nightloom.core.recommender import Recommender
from nightloom.core.sequences import Histories
from nightloom.models.baselines.interactions import interactions, popularity_prior
from nightloom.models.scorers.popularity import positive_counts


class ALS(Recommender):
    """Weighted matrix factorisation (Hu, Koren and Volinsky 2008, Collaborative filtering for implicit feedback datasets).

    A history's user factors are solved for at query time against the fixed item factors (their equation 4). A user never
    seen in training is served like any other.

    Args:
        factors: width of the factors.
        iterations: alternations.
        regularization: L2 weight on the factors.
        alpha: confidence of a positive event.
        seed: seed of the first factors.
    """

    family: ClassVar[str] = "als"

    def __init__(self, factors: int = 64, iterations: int = 15, regularization: float = 3.0, alpha: float = 1.0, seed: int = 7) -> None:
        self.factors = factors
        self.iterations = iterations
        self.regularization = regularization
        self.alpha = alpha
        self.seed = seed

    def fit(self, train: Histories, n_items: int) -> Self:
        """Factorise the matrix of histories and items."""
        self.n_items = n_items
        self.counts = positive_counts(train, n_items)
        with threadpool_limits(1, "blas"):  # implicit has its own threads; with BLAS's on top it is up to ten times slower
            self._solver = self._new_solver()
            self._solver.fit(interactions(train, n_items), show_progress=False)
        return self

    def scores(self, histories: Histories) -> NDArray[np.float32]:
        """Inner products of the history's factors and each item's, float32 [len(histories), n_items]; -inf for items never seen."""
        with threadpool_limits(1, "blas"):
            users = self._solver.recalculate_user(np.arange(len(histories)), interactions(histories, self.n_items))
            return users @ self._solver.item_factors.T + popularity_prior(self.counts)

    def save(self, folder: Path) -> None:
        """Write `als.npz`."""
        settings = {name: getattr(self, name) for name in ("factors", "iterations", "regularization", "alpha", "seed")}
        np.savez(folder / "als.npz", counts=self.counts, item_factors=self._solver.item_factors, **settings)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        with np.load(folder / "als.npz", allow_pickle=False) as arrays:
            model = cls(*(arrays[name].item() for name in ("factors", "iterations", "regularization", "alpha", "seed")))
            model.counts = arrays["counts"]
            model.n_items = len(model.counts)
            with threadpool_limits(1, "blas"):
                model._solver = model._new_solver()
            model._solver.item_factors = arrays["item_factors"]
        return model

    def _new_solver(self) -> AlternatingLeastSquares:
        return AlternatingLeastSquares(
            factors=self.factors,
            iterations=self.iterations,
            regularization=self.regularization,
            alpha=self.alpha,
            random_state=self.seed,
            num_threads=len(os.sched_getaffinity(0)),
        )
