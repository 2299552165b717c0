"""Scorer repeats: what was consumed often is consumed again (where seen items may be shown)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from nightloom.core.ragged import owners
from nightloom.core.sequences import Histories
from nightloom.models.scorers.sparse import Cells, Untrained


class Repeats(Untrained):
    """Scores are log(1 + positive events on the item in the history)."""

    family: ClassVar[str] = "repeats"

    def work(self, histories: Histories) -> NDArray[np.int64]:
        """Events of each history, int64 [n]."""
        return histories.lengths

    def cells(self, histories: Histories) -> Cells:
        """The items of each history."""
        row, item = owners(histories.offsets)[histories.positive], histories.items[histories.positive]
        keys, counts = np.unique(row * self.n_items + item, return_counts=True)
        return Cells(keys, np.log1p(counts, dtype=np.float32))
