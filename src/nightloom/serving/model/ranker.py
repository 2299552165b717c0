"""How the catalogue is ranked for one history: scorers, fusion, re-ranker, what may be recommended, the best."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from nightloom.core.sequences import Histories
from nightloom.models.scorers.score_fusion import weights_at
from nightloom.serving.items.catalogue import LiveCatalogue
from nightloom.serving.model.members import Member
from nightloom.serving.model.penalty import Penalty
from nightloom.serving.model.rerank import Reranker
from nightloom.serving.model.scoring import best, fuse, standardised, standards

FloatArray = NDArray[np.float32]
Answer = tuple[NDArray[np.int64], FloatArray]
"""Dense items, best first, and their scores; shorter than what was asked for where that can not be filled."""
NOTHING_SEEN = np.zeros(0, dtype=np.int32)


class Ranker:
    """Ranks a catalogue by the fused scores of the network and the scorers, and by the re-ranker where there is one.

    Args:
        catalogue: the items.
        members: the scorers that have a weight, by name.
        weights: scorer -> its fusion weight for long histories; the network has the rest.
        newcomer_weights: the same scorers -> fusion weight without a history.
        reranker: reorders the best items.
        penalty: what is taken off the final scores of popular items; None: nothing.
    """

    def __init__(
        self,
        catalogue: LiveCatalogue,
        members: Mapping[str, Member],
        weights: Mapping[str, float],
        newcomer_weights: Mapping[str, float],
        reranker: Reranker | None,
        penalty: Penalty | None = None,
    ) -> None:
        self.catalogue, self.members, self.reranker, self.penalty = catalogue, members, reranker, penalty
        self.weights, self.newcomer_weights = weights, newcomer_weights

    def rank(
        self,
        histories: Histories,
        user: FloatArray,
        k: int,
        exclude_seen: bool,
        allowed: NDArray[np.bool_] | None,
        candidates: NDArray[np.int64] | None,
        lift: FloatArray | None = None,
    ) -> Answer:
        """The k best items for one history.

        Args:
            histories: one history.
            user: float32 [dim], its user vector.
            k: how many.
            exclude_seen: see `Engine.recommend`.
            allowed: see `Engine.recommend`.
            candidates: see `Engine.recommend`.
            lift: see `Engine.recommend`.
        """
        catalogue = self.catalogue
        pool = catalogue.everything if candidates is None else np.unique(np.asarray(candidates, dtype=np.int64))
        scores = np.empty((len(self.members), len(catalogue)), np.float32)
        for row, member in zip(scores, self.members.values(), strict=True):
            member.score(histories, row)
        lines = np.empty((len(self.members) + 1, 3))
        standards(user, catalogue.mean, catalogue.covariance, scores, lines)
        found = np.empty(len(pool), np.float32)
        weights = fusion_weights(self.weights, self.newcomer_weights, histories.lengths)
        fuse(catalogue.rows, user, scores, lines, weights, pool, found)
        open_to, seen = catalogue.open_to(allowed), histories.items[histories.seen]
        if self.reranker is not None and len(pool):
            left_out = seen if self.reranker.exclude_seen else NOTHING_SEEN
            chosen, top = best_of(found, pool, open_to, left_out, self.reranker.candidates)
            chosen, top = filled(chosen, top, found, pool, self.reranker.candidates)
            details = standardised(catalogue.rows, user, scores, lines, chosen)
            names = ("network", *self.members)
            order = [names.index(name) for name in self.reranker.members]
            columns = np.concatenate([top[None], details[order]])
            odds = self.reranker.log_odds(columns, chosen, histories.items, histories.times, int(histories.request_time[0]))
            found = self.reranker.merged(found, odds, chosen if candidates is None else np.searchsorted(pool, chosen))
        if self.penalty is not None:
            found = found - self.penalty.values[pool]
        if lift is not None:
            found = found + lift[pool]
        return best_of(found, pool, open_to, seen if exclude_seen else NOTHING_SEEN, k)


def fusion_weights(weights: Mapping[str, float], newcomer_weights: Mapping[str, float], length: NDArray[np.int64]) -> FloatArray:
    """Weight of each member for one query, the network's first, float32 [scorers + 1].

    Args:
        weights: scorer -> its weight for long histories; the network has the rest.
        newcomer_weights: the same scorers -> weight without a history.
        length: int64 [1], events of the history.
    """
    found = [float(one[0]) for one in weights_at(weights, newcomer_weights, length).values()]
    return np.array([1 - sum(found), *found], dtype=np.float32)


def best_of(scores: FloatArray, pool: NDArray[np.int64], allowed: NDArray[np.bool_], seen: NDArray[np.int32], k: int) -> Answer:
    """The k best of some items, and their scores; arguments as in `nightloom.serving.model.scoring.best`."""
    k = min(k, len(pool))
    items, values = np.empty(k, np.int64), np.empty(k, np.float32)
    many = best(scores, pool, allowed, seen, k, items, values)
    return items[:many], values[:many]


def filled(chosen: NDArray[np.int64], top: FloatArray, scores: FloatArray, pool: NDArray[np.int64], k: int) -> Answer:
    """Candidates of the re-ranker where fewer may be recommended: the others follow by id, as in `Reranker.rescore`."""
    k = min(k, len(pool))
    if len(chosen) == k:
        return chosen, top
    rest = np.flatnonzero(~np.isin(pool, chosen))[: k - len(chosen)]
    return np.concatenate([chosen, pool[rest]]), np.concatenate([top, scores[rest]])
