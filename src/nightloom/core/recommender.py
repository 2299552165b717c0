"""What every recommender does: fit, scores, recommend, save, load.

A recommender ranks for histories, not for user ids, so a user never seen in training is served like any other.
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

Allowed = NDArray[np.bool_]
"""bool [n_items], items that may be recommended; bool [n, n_items] where that differs from history to history."""


class Recommender(ABC):
    """Base of the model and of every baseline.

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

    def recommend(
        self, histories: Histories, k: int, *, exclude_seen: bool = True, allowed: Allowed | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k best items for each history, ties broken by item id.

        Args:
            histories: one for each query.
            k: length of the lists.
            exclude_seen: whether items that the history has seen are left out.
            allowed: items that may be recommended; None: all.

        Returns:
            items int64 [n, k] (-1 where fewer can be ranked) and their scores float32 [n, k].
        """
        return best(self.scores(histories), histories, k, exclude_seen=exclude_seen, allowed=allowed)


class Scorer(Recommender):
    """A recommender that is built in seconds, whose scores are fused with a network's."""

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


def mask_excluded(
    scores: NDArray[np.float32],
    histories: Histories,
    *,
    exclude_seen: bool,
    allowed: Allowed | None,
    candidates: NDArray[np.int64] | None = None,
) -> None:
    """Set the scores of items that may not be recommended to -inf, in place.

    Arguments are as in `Recommender.recommend` and `mask_seen`; with candidates, `allowed` is bool [n, k] of these.
    """
    if exclude_seen:
        mask_seen(scores, histories, candidates)
    if allowed is not None:
        scores[np.broadcast_to(~allowed, scores.shape)] = -np.inf


def best(
    scores: NDArray[np.float32], histories: Histories, k: int, *, exclude_seen: bool, allowed: Allowed | None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k best of some scores, float32 [n, n_items], which are masked in place; the rest as in `Recommender.recommend`."""
    mask_excluded(scores, histories, exclude_seen=exclude_seen, allowed=allowed)
    scores[np.isnan(scores)] = -np.inf
    return best_items(scores, k)
