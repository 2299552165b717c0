"""Family popularity: the same list for all, by number of positive events in training."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nightloom.core.recommender import Scorer
from nightloom.core.sequences import Histories


def positive_counts(histories: Histories, n_items: int) -> NDArray[np.int64]:
    """Positive events of each item, int64 [n_items]."""
    return np.bincount(histories.items[histories.positive], minlength=n_items)


class Popularity(Scorer):
    """Scores are log(1 + positive events), so that beside others' scores the few at the top do not drown the rest.

    Every item can be ranked, those never seen last.
    """

    family: ClassVar[str] = "popularity"

    def fit(self, train: Histories, n_items: int) -> Self:
        """Count positive events."""
        self.n_items = n_items
        self.counts = positive_counts(train, n_items)
        return self

    def scores(self, histories: Histories) -> NDArray[np.float32]:
        """The same for each history: float32 [len(histories), n_items]."""
        return np.tile(np.log1p(self.counts).astype(np.float32), (len(histories), 1))

    def reindex(self, rows: NDArray[np.int64], n_items: int) -> Self:
        """The same counts over another catalogue."""
        other = type(self)()
        other.n_items, other.counts = n_items, np.zeros(n_items, dtype=np.int64)
        other.counts[rows[rows >= 0]] = self.counts[rows >= 0]
        return other

    def save(self, folder: Path) -> None:
        """Write `popularity.npz`."""
        np.savez(folder / "popularity.npz", counts=self.counts)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        model = cls()
        with np.load(folder / "popularity.npz", allow_pickle=False) as arrays:
            model.counts = arrays["counts"]
        model.n_items = len(model.counts)
        return model
