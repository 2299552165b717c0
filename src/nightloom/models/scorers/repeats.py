"""Scorer repeats: what one has had often, one has again (where items already had may be shown)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from nightloom.core.ragged import owners
from nightloom.core.recommender import Untrained
from nightloom.core.sequences import Histories


class Repeats(Untrained):
    """Scores are log(1 + positive events on the item in the history)."""

    family: ClassVar[str] = "repeats"

    def scores(self, histories: Histories) -> NDArray[np.float32]:
        """float32 [len(histories), n_items]."""
        row = owners(histories.offsets)[histories.positive]
        cells = len(histories) * self.n_items
        counts = np.bincount(row * self.n_items + histories.items[histories.positive], minlength=cells)
        return np.log1p(counts, dtype=np.float32).reshape(len(histories), self.n_items)
