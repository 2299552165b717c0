"""Scorer repeats: what was consumed often is consumed again (where seen items may be shown)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from nightloom.core.ragged import owners
from nightloom.core.sequences import Histories
from nightloom.models.scorers.sparse import Summands, Untrained


class Repeats(Untrained):
    """Scores are log(1 + positive events on the item in the history)."""

    family: ClassVar[str] = "repeats"

    def work(self, histories: Histories) -> NDArray[np.int64]:
        """Events of each history, int64 [n]."""
        return histories.lengths

    def summands(self, histories: Histories) -> Summands:
        """One for each positive event."""
        row, item = owners(histories.offsets)[histories.positive], histories.items[histories.positive]
        return Summands(row * self.n_items + item, np.ones(len(row)))

    def added(self, sums: NDArray[np.float64]) -> NDArray[np.float32]:
        """Logarithm of 1 + events."""
        return np.log1p(sums.astype(np.float32))
