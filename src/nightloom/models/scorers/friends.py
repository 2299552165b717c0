"""Scorer friends: what the people whom one is linked to have had."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from nightloom.core.ragged import owners
from nightloom.core.recommender import Untrained
from nightloom.core.sequences import Histories
from nightloom.models.scorers.item_graph import BLOCK_CELLS

STRANGER = 0.05
"""Weight of a friend whose history has nothing in common with one's own."""


class Friends(Untrained):
    """Votes of one's friends, each weighted by how alike the two histories are.

    A friend's weight is the cosine of the two sets of items, plus `STRANGER`, for a link says something of its own (Ma et al. 2011,
    Recommender systems with social regularization, weigh friends by likeness too). Friends' histories come with the question
    (`Histories.links`), so nothing of anybody is kept in the model; without them all scores are zero.
    """

    family: ClassVar[str] = "friends"

    def scores(self, histories: Histories) -> NDArray[np.float32]:
        """float32 [len(histories), n_items]."""
        out = np.zeros((len(histories), self.n_items), dtype=np.float32)
        step = max(1, BLOCK_CELLS // max(self.n_items, 1))
        for first in range(0, len(histories) if histories.links else 0, step):
            part = histories.take(slice(first, first + step))
            out[first : first + step] = self._votes(part)
        return out

    def _votes(self, part: Histories) -> NDArray[np.float64]:
        if part.links is None:
            return np.zeros((len(part), self.n_items))
        row, item = np.divmod(_pairs(part, self.n_items), self.n_items)
        mine = np.zeros((len(part), self.n_items), dtype=bool)
        mine[row, item] = True
        asker = owners(part.links.offsets)  # of each link
        link, had = np.divmod(_pairs(part.links.known.take(part.links.people), self.n_items), self.n_items)
        both = np.bincount(link, mine[asker[link], had], minlength=len(asker))
        sizes = np.bincount(link, minlength=len(asker)) * mine.sum(1)[asker]
        weight = both / np.sqrt(np.maximum(sizes, 1)) + STRANGER
        cell = asker[link] * self.n_items + had
        return np.bincount(cell, weight[link], minlength=mine.size).astype(np.float64).reshape(mine.shape)


def _pairs(histories: Histories, n_items: int) -> NDArray[np.int64]:
    """row * n_items + item of every item that a history has a positive event on, each once."""
    row = owners(histories.offsets)[histories.positive]
    return np.unique(row * np.int64(n_items) + histories.items[histories.positive])
