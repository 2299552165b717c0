"""Choosing the fusion weights of the scorers on validation: by likelihood, one set for who is new and one for who is known well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from nightloom.core.errors import TrainingError
from nightloom.core.ranking import blocks, held_out_mask, nan_queries, ndcg_of_scores, refuse_nan
from nightloom.core.recommender import mask_seen
from nightloom.core.sequences import Queries
from nightloom.core.threads import each
from nightloom.core.top_k import top_k
from nightloom.models.scorers.score_fusion import NETWORK, known_share, standard
from nightloom.models.sequential.large_catalogue import FROM_ITEMS, best_of_each, large_blocks, members_at
from nightloom.models.sequential.recommender import SequentialRecommender

MOST_QUERIES = 6_000
"""Queries that the weights are fitted to: more change them no further."""
PRIOR = 6.0
"""Nats by which a unit of weight must raise the likelihood of all queries together: what helps less is noise, and is left out."""
APART = 50.0
"""The same for a unit of squared difference between the weights for newcomers and for long histories, which may be few."""
LEAST_SHARE = 0.02
"""Share of the weights below which a scorer is left out: it would be computed for nothing."""
LEAST_GAIN = 1.0
"""Standard errors by which a fit must exceed weights that are known to do well elsewhere, to be taken in their place."""
SHORTLIST = 100
"""Best items of each member among which a query's ten best are looked for."""
DIGITS = 3
"""Of a weight: what is finer is noise."""
STEPS = 80
"""Most steps of the optimizer."""
START, NETWORK_START = -2.0, 0.5
"""Where the fit begins for each scorer and for the network; the softplus of it is the weight."""
BLOCK = 128
"""Queries whose scores are in memory at a time in double precision."""


@dataclass(frozen=True)
class Fusion:
    """What was chosen.

    Attributes:
        weights: scorer -> fusion weight for long histories; scorers without one are left out.
        newcomer_weights: the same scorers -> fusion weight where there is no history.
        ndcg: validation NDCG@10 with these weights.
        alone: member -> validation NDCG@10 of it alone, the network's as "network".
    """

    weights: dict[str, float]
    newcomer_weights: dict[str, float] = field(default_factory=dict)
    ndcg: float = 0.0
    alone: dict[str, float] = field(default_factory=dict)


Ends = tuple[Mapping[str, float], Mapping[str, float]]
"""Weight of every member, the network too: for long histories, and without one."""


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
        self.users, self.known = queries.users, known_share(queries.histories.lengths)
        if recommender.n_items > FROM_ITEMS:
            some = large_blocks(recommender, queries)
            list(each(lambda rows: self._read_large(recommender, queries.take(rows), rows, exclude_seen), some))
            return
        first = 0
        for part in blocks(queries, recommender.n_items * len(self.names)):
            rows = slice(first, first + len(part))
            self._read(recommender, part, rows, exclude_seen)
            first += len(part)

    def gains(self, weights: Mapping[str, float], newcomer_weights: Mapping[str, float] | None = None) -> NDArray[np.float64]:
        """NDCG@10 of each query when the members have some weights, float64 [queries]."""
        scores = self.seen_mask.copy()
        fresh = weights if newcomer_weights is None else newcomer_weights
        for at, name in enumerate(self.names):
            few, many = fresh.get(name, 0.0), weights.get(name, 0.0)
            if few or many:
                scores += (few + (many - few) * self.known).astype(np.float32)[:, None] * self.scores[at]
        return ndcg_of_scores(scores, self.held, self.many)

    def _read(self, recommender: SequentialRecommender, part: Queries, rows: slice, exclude_seen: bool) -> None:
        """Fill the rows of some queries."""
        histories = part.histories.packed()
        tables = [standard(recommender.network_scores(histories))]
        tables += [standard(scorer.scores(histories)) for scorer in recommender.scorers.values()]
        k, items = self.scores.shape[2] // len(tables), []
        for name, table in zip(self.names, tables, strict=True):
            refuse_nan(nan_queries(table), len(part), name)
            allowed = table.copy() if exclude_seen else table
            if exclude_seen:
                mask_seen(allowed, histories)
            items.append(top_k(allowed, k))
        listed = np.sort(np.concatenate(items, 1), axis=1)
        mask = np.zeros_like(tables[0])
        if exclude_seen:
            mask_seen(mask, histories)
        self.seen_mask[rows] = np.take_along_axis(mask, listed, 1)
        self.seen_mask[rows, 1:][listed[:, 1:] == listed[:, :-1]] = -np.inf  # listed by several members: kept once
        self.held[rows] = np.take_along_axis(held_out_mask(part, mask.shape[1]), listed, 1) & np.isfinite(self.seen_mask[rows])
        for at, table in enumerate(tables):
            self.scores[at, rows] = np.take_along_axis(table, listed, 1)

    def _read_large(self, recommender: SequentialRecommender, part: Queries, rows: NDArray[np.int64], exclude_seen: bool) -> None:
        """As `_read`, with no full table of a scorer that needs none."""
        histories, k = part.histories.packed(), self.scores.shape[2] // len(self.names)
        listed = np.sort(np.concatenate(best_of_each(recommender, histories, recommender.scorers, k, exclude_seen=exclude_seen), 1), axis=1)
        mask = np.zeros(listed.shape, dtype=np.float32)
        if exclude_seen:
            mask_seen(mask, histories, listed)
        mask[:, 1:][listed[:, 1:] == listed[:, :-1]] = -np.inf
        self.seen_mask[rows] = mask
        self.held[rows] = np.take_along_axis(held_out_mask(part, recommender.n_items), listed, 1) & np.isfinite(mask)
        for at, (name, scores) in enumerate(members_at(recommender, histories, listed, recommender.scorers).items()):
            refuse_nan(nan_queries(scores), len(part), name)
            self.scores[at, rows] = scores


def choose_fusion(
    recommender: SequentialRecommender, queries: Queries, *, exclude_seen: bool, known: Mapping[str, float] | None = None
) -> Fusion:
    """Fit the weights of all members to what the users of the validation queries did next.

    The fit is a multinomial logistic regression (McFadden 1974) on the members' standardised scores, with weights from zero on. They
    move smoothly from those of an empty history to those of a long one (`known_share`). Of it, of one set for all histories, and of the
    best member alone, that with the highest validation NDCG@10 is taken.

    Args:
        recommender: network and scorers, both fitted without the validation part.
        queries: validation queries.
        exclude_seen: whether a history's items are left out of the ranking.
        known: scorer -> fusion weight, together less than 1, known to do well on other queries. They are given up only for a
            significant gain, since few queries find something better by chance.
    """
    known = {name: weight for name, weight in (known or {}).items() if name in recommender.scorers}
    if not len(queries):
        return Fusion(known, known, 0.0, {NETWORK: 0.0})
    lists = Shortlists(recommender, queries, exclude_seen=exclude_seen)
    alone = {name: float(lists.gains({name: 1.0}).mean()) for name in lists.names}
    best = max(alone, key=lambda name: alone[name])  # of equals the first, the network
    tried: list[Ends] = [({best: 1.0}, {best: 1.0})]
    if len(lists.names) > 1:
        tried += [fit(lists, ends=1), fit(lists, ends=2)]
    gains = [lists.gains(*ends) for ends in tried]
    at = int(np.argmax([one.mean() for one in gains]))
    ends, found = tried[at], gains[at]
    if known:
        given = {NETWORK: 1 - sum(known.values())} | known
        likely = lists.gains(given)
        if not exceeds_standard_error(found - likely, lists.users):
            ends, found = (given, given), likely
    many, few = ({name: round(weight, DIGITS) for name, weight in one.items()} for one in ends)
    names = [name for name in lists.names if name != NETWORK and (many.get(name) or few.get(name))]
    weights, fresh = ({name: one.get(name, 0.0) for name in names} for one in (many, few))
    return Fusion(weights, fresh, float(found.mean()), alone)


def fit(lists: Shortlists, ends: int) -> Ends:
    """Weights of the highest likelihood, less what the prior takes.

    Args:
        lists: of all members.
        ends: 1 for one set of weights for all histories, 2 for weights that depend on how much is known.

    Returns:
        The members' weights for long histories and without one; each sums to 1, and a member is left out that has little in both.

    Raises:
        TrainingError: the fit has diverged.
    """
    rows = np.flatnonzero(lists.held.any(axis=1))
    if not len(rows):
        return {NETWORK: 1.0}, {NETWORK: 1.0}
    rows = rows[:: -(-len(rows) // MOST_QUERIES)]
    known = lists.known[rows].astype(np.float64) if ends == 2 else np.ones(len(rows))
    share = np.stack([known, 1 - known], 1)
    raw = torch.full((len(lists.names), 2), START, dtype=torch.float64)
    raw[0] = NETWORK_START
    optimizer = torch.optim.LBFGS([raw], max_iter=STEPS, tolerance_grad=1e-9, tolerance_change=1e-12, line_search_fn="strong_wolfe")

    def loss() -> float:
        """Negative likelihood and prior; leaves their slope with `raw`, of which the weights are the softplus."""
        weights = functional.softplus(raw).numpy()
        value, slope = _likelihood(lists, rows, share, weights)
        value, slope = PRIOR * float(weights[:, :ends].sum()) - value, -slope
        slope[:, :ends] += PRIOR
        if ends == 2:
            apart = weights[:, 0] - weights[:, 1]
            value += APART * float(apart @ apart)
            slope += 2 * APART * np.stack([apart, -apart], 1)
        raw.grad = torch.from_numpy(slope / len(rows)) * torch.sigmoid(raw)
        return value / len(rows)

    optimizer.step(loss)
    found = functional.softplus(raw).numpy()
    if ends == 1:
        found[:, 1] = found[:, 0]
    if not np.isfinite(found).all():
        raise TrainingError("the fit of the fusion weights has diverged. Leave scorers out of model.scorers; [] is the network alone.")
    if not found.sum(0).all():  # so few queries that the prior leaves nobody a weight
        return {NETWORK: 1.0}, {NETWORK: 1.0}
    found /= found.sum(0)
    found[(found < LEAST_SHARE).all(axis=1)] = 0
    found /= found.sum(0)
    many, few = ({name: float(weight) for name, weight in zip(lists.names, end, strict=True)} for end in found.T)
    return many, few


def _likelihood(
    lists: Shortlists, rows: NDArray[np.intp], share: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Log-likelihood of what was held out, summed over queries, and its gradient.

    A block of queries at a time, in double precision: one worker and two, whose scores differ by rounding, find the same weights.

    Args:
        lists: of all members.
        rows: queries of them.
        share: how much the weights of each end count for each query, float64 [rows, 2].
        weights: float64 [members, 2].
    """
    total, slope = 0.0, np.zeros_like(weights)
    for first in range(0, len(rows), BLOCK):
        part, ends = rows[first : first + BLOCK], share[first : first + BLOCK]
        mixed = ends @ weights.T
        tables = [table[part].astype(np.float64) for table in lists.scores]
        scores = lists.seen_mask[part].astype(np.float64)
        for at, table in enumerate(tables):
            scores += mixed[:, at, None] * table
        scores -= scores.max(axis=1, keepdims=True)
        logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        held = lists.held[part] / lists.held[part].sum(1, keepdims=True)
        total += float((held * np.where(held > 0, logs, 0)).sum())
        surprise = held - np.exp(logs)
        slope += np.stack([np.einsum("ri,ri->r", surprise, table) for table in tables]) @ ends
    return total, slope


def exceeds_standard_error(gain: NDArray[np.float64], users: NDArray[np.int64]) -> bool:
    """Whether paired differences over queries are above zero by `LEAST_GAIN` standard errors of their mean, users being drawn.

    Args:
        gain: float64 [queries].
        users: int64 [queries], whose they are.
    """
    return bool(gain.mean() > LEAST_GAIN * standard_error(gain, users))


def standard_error(values: NDArray[np.float64], users: NDArray[np.int64]) -> float:
    """Standard error of a mean over queries, users being drawn with all their queries; arguments as in `exceeds_standard_error`."""
    sums = np.bincount(np.unique(users, return_inverse=True)[1], values - values.mean())
    return float(np.square(sums).sum()) ** 0.5 / len(values)
