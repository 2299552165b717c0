"""Scorer friends: what the users whom a user is linked to have interacted with."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from nightloom.core.ragged import owners
from nightloom.core.sequences import Histories
from nightloom.models.scorers.sparse import NOTHING, Summands, Untrained

STRANGER = 0.05
"""Weight of a friend whose history has nothing in common with the user's."""


class Friends(Untrained):
    """Votes of a user's friends, each weighted by how alike the two histories are.

    A friend's weight is the cosine of the two sets of items, plus `STRANGER`, for a link says something of its own (Ma et al. 2011,
    Recommender systems with social regularization, weigh friends by likeness too). Friends' histories come with the query
    (`Histories.links`), so nobody's history is kept in the model; without them all scores are zero.
    """

    family: ClassVar[str] = "friends"

    def work(self, histories: Histories) -> NDArray[np.int64]:
        """Events of each history's friends, int64 [n]."""
        links = histories.links
        if links is None:
            return np.zeros(len(histories), dtype=np.int64)
        return np.bincount(owners(links.offsets), links.known.lengths[links.friends], minlength=len(histories)).astype(np.int64)

    def summands(self, histories: Histories) -> Summands:
        """One vote for each item of each friend."""
        links = histories.links
        if links is None:
            return NOTHING
        n, own = len(histories), _pairs(histories, self.n_items)
        user = owners(links.offsets)  # of each link
        link, item = np.divmod(_pairs(links.known.take(links.friends), self.n_items), max(self.n_items, 1))
        votes = user[link] * self.n_items + item
        common = np.bincount(link, np.isin(votes, own), minlength=len(user))
        sizes = np.bincount(own // max(self.n_items, 1), minlength=n)[user] * np.bincount(link, minlength=len(user))
        weight = common / np.sqrt(np.maximum(sizes, 1)) + STRANGER
        return Summands(votes, weight[link])


def _pairs(histories: Histories, n_items: int) -> NDArray[np.int64]:
    """row * n_items + item of every item that a history has a positive event on, each once, ascending."""
    row = owners(histories.offsets)[histories.positive]
    return np.unique(row * n_items + histories.items[histories.positive])
