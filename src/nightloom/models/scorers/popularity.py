"""Scorer popularity: the same list for all, by number of positive events in training."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nightloom.core.sequences import Histories
from nightloom.models.scorers.sparse import NOTHING, Base, SparseScorer, Summands


def positive_counts(histories: Histories, n_items: int) -> NDArray[np.int64]:
    """Positive events of each item, int64 [n_items]."""
    return np.bincount(histories.items[histories.positive], minlength=n_items)


class Popularity(SparseScorer):
    """Scores are log(1 + positive events): beside other members' scores the few items at the top do not drown the rest.

    Every item can be ranked, those never seen last.
    """

    family: ClassVar[str] = "popularity"

    def fit(self, train: Histories, n_items: int) -> Self:
        """Count positive events."""
        return self._keep(positive_counts(train, n_items))

    def _keep(self, counts: NDArray[np.int64]) -> Self:
        self.n_items, self.counts, self.base = len(counts), counts, Base(np.log1p(counts).astype(np.float32))
        return self

    def work(self, histories: Histories) -> NDArray[np.int64]:
        """Nothing depends on the history: zeros, int64 [n]."""
        return np.zeros(len(histories), dtype=np.int64)

    def summands(self, histories: Histories) -> Summands:  # noqa: ARG002  # the base is the whole score
        """None."""
        return NOTHING

    def reindex(self, rows: NDArray[np.int64], n_items: int) -> Self:
        """The same counts over another catalogue."""
        counts = np.zeros(n_items, dtype=np.int64)
        counts[rows[rows >= 0]] = self.counts[rows >= 0]
        return type(self)()._keep(counts)

    def save(self, folder: Path) -> None:
        """Write `popularity.npz`."""
        np.savez(folder / "popularity.npz", counts=self.counts)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        with np.load(folder / "popularity.npz", allow_pickle=False) as arrays:
            return cls()._keep(arrays["counts"])
