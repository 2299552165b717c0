"""Choosing the fusion weight of each scorer on validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nightloom.core.ranking import blocks, held_out_mask, nan_queries, ndcg_of_scores, refuse_nan
from nightloom.core.recommender import mask_seen
from nightloom.core.sequences import Queries
from nightloom.core.top_k import top_k
from nightloom.models.scorers.score_fusion import NETWORK, standard
from nightloom.models.sequential.recommender import SequentialRecommender

STEPS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Weights by which a member may grow in a round, where the start has weights of 1."""
ROUNDS = 12
LEAST_GAIN = 1.0
"""Standard errors by which a step must raise NDCG@10: a smaller gain is noise, and would be paid for on new data."""
SHORTLIST = 100
"""Best items of each member among which a query's ten best are looked for."""


@dataclass(frozen=True)
class Fusion:
    """What was chosen.

    Attributes:
        weights: scorer -> fusion weight; scorers without one are left out.
        ndcg: validation NDCG@10 with these weights.
        alone: member -> validation NDCG@10 of it alone, the network's as "network".
    """

    weights: dict[str, float]
    ndcg: float
    alone: dict[str, float]


class Shortlists:
    """Standardised scores of every member for the items that can come among a query's ten best.

    Args:
        recommender: network and scorers.
        queries: validation queries.
        exclude_seen: whether a history's items are left out.
    """

    def __init__(self, recommender: SequentialRecommender, queries: Queries, *, exclude_seen: bool) -> None:
        self.names = [NETWORK, *recommender.scorers]
        width = len(self.names) * min(SHORTLIST, recommender.n_items)
        self.scores = np.empty((len(self.names), len(queries), width), dtype=np.float32)
        self.seen_mask = np.zeros((len(queries), width), dtype=np.float32)
        self.held = np.zeros((len(queries), width), dtype=bool)
        self.many = np.diff(queries.target_offsets)
        first = 0
        for part in blocks(queries, recommender.n_items * len(self.names)):
            rows = slice(first, first + len(part))
            self._read(recommender, part, rows, exclude_seen)
            first += len(part)

    def gains(self, weights: Mapping[str, float]) -> NDArray[np.float64]:
        """NDCG@10 of each query when the members have some weights, float64 [queries]."""
        scores = self.seen_mask.copy()
        for at, name in enumerate(self.names):
            if weights.get(name):
                scores += np.float32(weights[name]) * self.scores[at]
        return ndcg_of_scores(scores, self.held, self.many)

    def _read(self, recommender: SequentialRecommender, part: Queries, rows: slice, exclude_seen: bool) -> None:
        """Fill the rows of some queries."""
        tables = [standard(recommender.network_scores(part.histories))]
        tables += [standard(scorer.scores(part.histories)) for scorer in recommender.scorers.values()]
        k, items = self.scores.shape[2] // len(tables), []
        for name, table in zip(self.names, tables, strict=True):
            refuse_nan(nan_queries(table), len(part), name)
            allowed = table.copy() if exclude_seen else table
            if exclude_seen:
                mask_seen(allowed, part.histories)
            items.append(top_k(allowed, k))
        listed = np.sort(np.concatenate(items, 1), axis=1)
        mask = np.zeros_like(tables[0])
        if exclude_seen:
            mask_seen(mask, part.histories)
        self.seen_mask[rows] = np.take_along_axis(mask, listed, 1)
        self.seen_mask[rows, 1:][listed[:, 1:] == listed[:, :-1]] = -np.inf  # listed by several members: kept once
        self.held[rows] = np.take_along_axis(held_out_mask(part, mask.shape[1]), listed, 1)
        for at, table in enumerate(tables):
            self.scores[at, rows] = np.take_along_axis(table, listed, 1)


def choose_fusion(
    recommender: SequentialRecommender, queries: Queries, *, exclude_seen: bool, known: Mapping[str, float] | None = None
) -> Fusion:
    """Hill climbing from the best member and from equal weights; the better end is taken.

    From one start alone it often stays where two members do not help unless they come together.

    Args:
        recommender: network and scorers, both fitted without the validation part.
        queries: validation queries.
        exclude_seen: whether a history's items are left out of the ranking.
        known: scorer -> fusion weight, together less than 1, known to do well on other queries. What is reached from there
            is given up only for a significant gain, since few queries find something better by chance.
    """
    known = {name: weight for name, weight in (known or {}).items() if name in recommender.scorers}
    if not len(queries):
        return Fusion(known, 0.0, {NETWORK: 0.0})
    lists = Shortlists(recommender, queries, exclude_seen=exclude_seen)
    alone = {name: float(lists.gains({name: 1.0}).mean()) for name in lists.names}
    best = max(alone, key=lambda name: alone[name])  # of equals the first, the network
    starts = ({best: 1.0}, dict.fromkeys(lists.names, 1.0))
    weights = max((climb(lists, start) for start in starts), key=lambda found: float(lists.gains(found).mean()))
    if known:
        likely = climb(lists, {NETWORK: 1 - sum(known.values())} | known)
        weights = weights if exceeds_standard_error(lists.gains(weights) - lists.gains(likely)) else likely
    total = sum(weights.values())
    scaled = {name: round(weight / total, 4) for name, weight in weights.items() if name != NETWORK}
    return Fusion(scaled, float(lists.gains(weights).mean()), alone)


def climb(lists: Shortlists, weights: Mapping[str, float]) -> dict[str, float]:
    """Take the step that raises NDCG@10 most, until no step raises it significantly.

    A step gives a member more weight, halves it or takes it out.
    """
    gains = lists.gains(weights)
    for _ in range(ROUNDS):
        best: tuple[float, dict[str, float], NDArray[np.float64]] | None = None
        for name in lists.names:
            now = weights.get(name, 0.0)
            for value in (*(now + step for step in STEPS), *((now / 2, 0.0) if now and len(weights) > 1 else ())):
                tried = {key: one for key, one in (dict(weights) | {name: value}).items() if one}
                found = lists.gains(tried)
                gain = found - gains
                if exceeds_standard_error(gain) and gain.mean() > (best[0] if best else 0.0):
                    best = (float(gain.mean()), tried, found)
        if best is None:
            break
        _, weights, gains = best
    return dict(weights)


def exceeds_standard_error(gain: NDArray[np.float64]) -> bool:
    """Whether paired differences over queries are above zero by `LEAST_GAIN` standard errors of their mean."""
    return bool(gain.mean() > LEAST_GAIN * float(gain.std()) / len(gain) ** 0.5)
