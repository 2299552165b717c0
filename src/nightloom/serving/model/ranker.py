"""How the catalogue is ranked for one history: scorers, fusion, re-ranker, what may be recommended, the best."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nightloom.core.sequences import Histories
from nightloom.models.scorers.score_fusion import weights_at
from nightloom.serving.items.catalogue import LiveCatalogue
from nightloom.serving.model.members import Member
from nightloom.serving.model.penalty import Penalty
from nightloom.serving.model.rerank import Reranker
from nightloom.serving.model.retrieval import Retrieval, Scored
from nightloom.serving.model.scoring import best, fuse, standardised, standards

FloatArray = NDArray[np.float32]
Answer = tuple[NDArray[np.int64], FloatArray]
"""Dense items, best first, and their scores; shorter than what was asked for where that can not be filled."""
Others = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""The best items, dense, best first -> others whose scores are asked for, too: int64 [m]."""
MOST, NEEDED = 20, 100
"""Lists of more than this part of a catalogue are made of all of it; and items that a re-ranker looks at."""
LENGTHS = 4_096
"""Lengths of histories whose fusion weights are kept."""
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

    Attributes:
        retrieval: finds candidates of a large catalogue; None: all of it is scored.
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
        self.retrieval: Retrieval | None = None
        self.weights, self.newcomer_weights = weights, newcomer_weights
        self._weights_at = lru_cache(LENGTHS)(lambda events: fusion_weights(weights, newcomer_weights, np.array([events])))

    def rank(
        self,
        histories: Histories,
        user: FloatArray,
        k: int,
        exclude_seen: bool,
        allowed: NDArray[np.bool_] | None,
        candidates: NDArray[np.int64] | None,
        lift: FloatArray | None = None,
        also: Others | None = None,
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
            also: see `Engine.recommend`.
        """
        catalogue = self.catalogue
        weights = self._weights_at(len(histories.items))
        open_to, seen = catalogue.open_to(allowed), histories.items[histories.seen]
        wanted = k + len(seen)
        if candidates is None and wanted <= len(catalogue) // MOST and self.retrieval is not None and self.retrieval.pays(open_to):
            lifted = np.zeros(0, np.int64) if lift is None else np.flatnonzero(lift)
            scored = self.retrieval.scored(histories, user, weights, open_to, lifted, max(wanted, NEEDED + len(seen)))
        else:
            scored = self._scored(histories, user, weights, candidates)
        found, pool = scored.fused, scored.pool
        if self.reranker is not None and len(pool):
            found = self._reranked(self.reranker, scored, histories, user, open_to, seen)
        if self.penalty is not None:
            found = found - self.penalty.values[pool]
        if lift is not None:
            found = found + lift[pool]
        hidden = seen if exclude_seen else NOTHING_SEEN
        best = best_of(found, pool, open_to, hidden, k)
        if also is None:
            return best
        others = also(best[0])
        return followed(best, others[open_to[others]], hidden, found, pool)

    def _scored(self, histories: Histories, user: FloatArray, weights: FloatArray, candidates: NDArray[np.int64] | None) -> Scored:
        """The whole catalogue, or what a caller has chosen of it."""
        catalogue = self.catalogue
        scores = np.empty((len(self.members), len(catalogue)), np.float32)
        for row, member in zip(scores, self.members.values(), strict=True):
            member.score(histories, row)
        lines = np.empty((len(self.members) + 1, 3))
        standards(user, catalogue.mean, catalogue.covariance, scores, lines)
        pool = catalogue.everything if candidates is None else np.unique(np.asarray(candidates, dtype=np.int64))
        found = np.empty(len(pool), np.float32)
        fuse(catalogue.rows, user, scores, lines, weights, pool, found)
        return Scored(pool, found, scores if candidates is None else scores.take(pool, axis=1), lines)

    def _reranked(
        self,
        reranker: Reranker,
        scored: Scored,
        histories: Histories,
        user: FloatArray,
        open_to: NDArray[np.bool_],
        seen: NDArray[np.int32],
    ) -> FloatArray:
        """Final scores of what was scored."""
        pool, found = scored.pool, scored.fused
        left_out = seen if reranker.exclude_seen else NOTHING_SEEN
        chosen, top = best_of(found, pool, open_to, left_out, reranker.candidates)
        chosen, top = filled(chosen, top, found, pool, reranker.candidates)
        places = np.searchsorted(pool, chosen)
        details = standardised(self.catalogue.rows, user, scored.members, scored.lines, chosen, places)
        names = ("network", *self.members)
        order = [names.index(name) for name in reranker.members]
        columns = np.concatenate([top[None], details[order]])
        odds = reranker.log_odds(columns, chosen, histories.items, histories.times, int(histories.request_time[0]))
        return reranker.merged(found, odds, places)


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


def followed(best: Answer, also: NDArray[np.int64], hidden: NDArray[np.int32], scores: FloatArray, pool: NDArray[np.int64]) -> Answer:
    """The best items, and others behind them that are neither among these nor hidden; all are in the pool."""
    rest = np.setdiff1d(also, np.concatenate([best[0], hidden]))
    return np.concatenate([best[0], rest]), np.concatenate([best[1], scores[np.searchsorted(pool, rest)]])
