"""The popularity penalty: what is taken off the final score of an item because many had it, so that lists reach further down the tail.

It is strength * z, z being the logarithm of 1 + positive events, standardised over the catalogue as every member of the fusion is. Where
scores are a re-ranker's log-odds, it is turned into log-odds by the re-ranker's own line through fused scores. It stands as the night
left it: what happens by day does not move it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from nightloom.core.moments import Moments
from nightloom.models.scorers.score_fusion import Scores

FILE = "popularity_penalty.npz"


@dataclass(frozen=True)
class PopularityPenalty:
    """What is taken off.

    Attributes:
        strength: the constant of the fusion, lambda.
        values: float32 [items], to be subtracted.
        unseen: the same of an item without any event.
    """

    strength: float
    values: NDArray[np.float32]
    unseen: float

    @classmethod
    def of(cls, counts: NDArray[np.integer], strength: float, unit: float = 1.0) -> Self:
        """From the positive events of each item, int [items].

        Args:
            counts: of what training has learned.
            strength: lambda.
            unit: how much a unit of the fused score is in final scores (`SequentialRecommender.fused_unit`).
        """
        logs = np.log1p(np.append(counts, 0)).astype(np.float32)[None]
        found = (strength * unit) * Moments.of(logs[:, :-1]).standardise(logs)[0]
        return cls(strength, found[:-1].astype(np.float32), float(found[-1]))

    def reindex(self, rows: NDArray[np.int64], n_items: int) -> Self:
        """The same over another catalogue, as `Scorer.reindex`; items that it does not know are unseen."""
        values = np.full(n_items, self.unseen, dtype=np.float32)
        values[rows[rows >= 0]] = self.values[rows >= 0]
        return type(self)(self.strength, values, self.unseen)

    def without(self, item: int) -> Self:
        """The same where one item counts as unseen."""
        values = self.values.copy()
        values[item] = self.unseen
        return type(self)(self.strength, values, self.unseen)

    def taken_off(self, scores: Scores, items: NDArray[np.int64] | None = None) -> Scores:
        """Scores less the penalty.

        Args:
            scores: float32 [n, items], or [n, k] of some items.
            items: int64 [n, k], which; None: the whole catalogue.
        """
        found: Scores = scores - (self.values if items is None else self.values[items])
        return found

    def save(self, folder: Path) -> None:
        """Write `popularity_penalty.npz`."""
        np.savez(folder / FILE, strength=self.strength, values=self.values, unseen=np.float32(self.unseen))

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """Read what `save` wrote; None where nothing was."""
        if not (folder / FILE).is_file():
            return None
        with np.load(folder / FILE, allow_pickle=False) as arrays:
            return cls(float(arrays["strength"]), arrays["values"], float(arrays["unseen"]))
