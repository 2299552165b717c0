"""What every recommender does: fit, scores, recommend, save, load.

A recommender answers histories, not user ids, so a user never seen in training is served like any other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nightloom.core.moments import Moments
from nightloom.core.ragged import owners
from nightloom.core.sequences import Histories
from nightloom.core.top_k import best_items


class Recommender(ABC):
    """Base of all families.

    Attributes:
        family: the name under which results are reported.
        n_items: size of the catalogue it was fitted on.
    """

    family: ClassVar[str]
    n_items: int

    @abstractmethod
    def fit(self, train: Histories, n_items: int) -> Self:
        """Learn from histories over a catalogue of `n_items` dense item ids."""

    @abstractmethod
    def scores(self, histories: Histories) -> NDArray[np.float32]:
        """Score the whole catalogue for each history.

        Returns:
            float32 [len(histories), n_items], higher is better; -inf where an item can not be ranked.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write all that `load` needs, without pickles."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""

    def recommend(self, histories: Histories, k: int, *, exclude_seen: bool = True) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k best items for each history, ties broken by item id.

        Returns:
            items int64 [n, k] (-1 where fewer can be ranked) and their scores float32 [n, k].
        """
        scores = self.scores(histories)
        if exclude_seen:
            mask_seen(scores, histories)
        scores[np.isnan(scores)] = -np.inf
        return best_items(scores, k)


class Scorer(Recommender):
    """A recommender that is built in seconds, and whose scores are fused late with a network's."""

    def candidate_scores(self, histories: Histories, candidates: NDArray[np.int64]) -> tuple[NDArray[np.float32], Moments]:
        """Scores of some items only, and the moments of the whole catalogue's, which fusion standardises by.

        This default scores the whole catalogue; a scorer that knows a shorter way overrides it.

        Args:
            histories: n queries.
            candidates: int64 [n, k], dense items.

        Returns:
            float32 [n, k], as `scores` gives them, and the moments of each query.
        """
        scores = self.scores(histories)
        return np.take_along_axis(scores, candidates, 1), Moments.of(scores)

    @abstractmethod
    def reindex(self, rows: NDArray[np.int64], n_items: int) -> Self:
        """The same over another catalogue.

        Args:
            rows: int64 [n_items of this one], each item's dense id there, -1 where it is gone.
            n_items: size of the other catalogue.
        """


def mask_seen(scores: NDArray[np.float32], histories: Histories, candidates: NDArray[np.int64] | None = None) -> None:
    """Set the scores of items that each history has seen to -inf, in place.

    Args:
        scores: float32 [n, items], or [n, k] where candidates are given.
        histories: n queries.
        candidates: int64 [n, k], the items that are scored; None: the whole catalogue.
    """
    row, item = owners(histories.offsets)[histories.seen], histories.items[histories.seen]
    if candidates is None:
        scores[row, item] = -np.inf
        return
    width = np.int64(max(int(candidates.max(initial=0)), int(item.max(initial=0))) + 1)
    scores[np.isin(np.arange(len(histories))[:, None] * width + candidates, row * width + item)] = -np.inf
