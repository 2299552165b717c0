"""Scorer popularity: the same list for all, by number of positive events in training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nightloom.core.sequences import Histories
from nightloom.models.scorers.sparse import NOTHING, Base, SparseScorer, Summands

if TYPE_CHECKING:
    from nightloom.models.scorers.newcomers import Newcomers


def positive_counts(histories: Histories, n_items: int) -> NDArray[np.int64]:
    """Positive events of each item, int64 [n_items]."""
    return np.bincount(histories.items[histories.positive], minlength=n_items)


class Popularity(SparseScorer):
    """Scores are log(1 + positive events): beside other members' scores the few items at the top do not drown the rest.

    Every item can be ranked, those never seen last, unless something is expected of them.

    Attributes:
        counts: [n_items], how much an item's events count together.
        expected: float32 [n_items], scores of items without positive events.
    """

    family: ClassVar[str] = "popularity"

    def fit(self, train: Histories, n_items: int) -> Self:
        """Count positive events."""
        return self._keep(positive_counts(train, n_items))

    def expect(self, newcomers: Newcomers) -> None:
        """Score items that nobody has acted on by what is known of their neighbours."""
        expected = self.expected.copy()
        expected[newcomers.items] = newcomers.expect(np.log1p(self.counts)[:, None])[:, 0]
        self._keep(self.counts, expected)

    def _keep(self, counts: NDArray[Any], expected: NDArray[np.float32] | None = None) -> Self:
        self.n_items, self.counts = len(counts), counts
        self.expected = np.zeros(len(counts), dtype=np.float32) if expected is None else expected
        self.base = Base(np.where(counts > 0, np.log1p(counts), self.expected).astype(np.float32))
        return self

    def work(self, histories: Histories) -> NDArray[np.int64]:
        """Nothing depends on the history: zeros, int64 [n]."""
        return np.zeros(len(histories), dtype=np.int64)

    def summands(self, histories: Histories) -> Summands:  # noqa: ARG002  # the base is the whole score
        """None."""
        return NOTHING

    def reindex(self, rows: NDArray[np.int64], n_items: int) -> Self:
        """The same over another catalogue; nothing is expected of its new items yet."""
        counts, expected = np.zeros(n_items, dtype=self.counts.dtype), np.zeros(n_items, dtype=np.float32)
        here = rows >= 0
        counts[rows[here]], expected[rows[here]] = self.counts[here], self.expected[here]
        return type(self)()._keep(counts, expected)

    def save(self, folder: Path) -> None:
        """Write `popularity.npz`."""
        np.savez(folder / "popularity.npz", counts=self.counts, expected=self.expected)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        with np.load(folder / "popularity.npz", allow_pickle=False) as arrays:
            return cls()._keep(arrays["counts"], arrays.get("expected"))  # one of before had none
