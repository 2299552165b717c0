"""Companion repeats: what one has had often, one has again (where items already had may be shown)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nightloom.data.sequences import Histories
from nightloom.models.base import Companion


class Repeats(Companion):
    """Scores are log(1 + positive events on the item in the history)."""

    family: ClassVar[str] = "repeats"

    def fit(self, train: Histories, n_items: int) -> Self:  # noqa: ARG002  # the verb of every recommender
        """Only the size of the catalogue is kept."""
        self.n_items = n_items
        return self

    def scores(self, histories: Histories) -> NDArray[np.float32]:
        """float32 [len(histories), n_items]."""
        row = np.repeat(np.arange(len(histories)), histories.lengths)[histories.positive]
        cells = len(histories) * self.n_items
        counts = np.bincount(row * self.n_items + histories.items[histories.positive], minlength=cells)
        return np.log1p(counts, dtype=np.float32).reshape(len(histories), self.n_items)

    def onto(self, rows: NDArray[np.int64], n_items: int) -> Self:  # noqa: ARG002
        """The same over another catalogue."""
        return type(self)().fit(Histories.of_items([]), n_items)

    def save(self, folder: Path) -> None:
        """Write `repeats.npz`."""
        np.savez(folder / "repeats.npz", n_items=self.n_items)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        model = cls()
        with np.load(folder / "repeats.npz", allow_pickle=False) as arrays:
            model.n_items = int(arrays["n_items"])
        return model
