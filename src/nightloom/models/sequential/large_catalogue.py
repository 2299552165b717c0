"""Scores over a large catalogue without a full table of each member: the same as `finish` gives, but for rounding.

A standardised score is the score less its mean, divided by its deviation, and both are known in closed form (`candidate_scores`). So a
fused score is a sum of inner products and of bases, which are matrix products over the catalogue, and of what a history adds to few
items. A full table of each member, standardised by itself, takes ten times as long at a million items.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from nightloom.core.moments import Moments
from nightloom.core.ranking import BLOCK_CELLS
from nightloom.core.recommender import Scorer, mask_seen
from nightloom.core.sequences import Histories, Queries
from nightloom.core.top_k import top_k
from nightloom.models.scorers.als import ALS
from nightloom.models.scorers.nearest import EXACT
from nightloom.models.scorers.score_fusion import NETWORK, Scores
from nightloom.models.scorers.sparse import SparseScorer

if TYPE_CHECKING:
    from nightloom.models.sequential.recommender import SequentialRecommender

FROM_ITEMS = EXACT
"""Items above which scores are made like this."""
IntArray = NDArray[np.int64]


def large_blocks(model: SequentialRecommender, queries: Queries) -> list[IntArray]:
    """Rows of queries whose scores a thread holds at once; what threads share is made before."""
    model.vector_moments(model.item_vectors())
    step = max(1, BLOCK_CELLS // (4 * model.n_items))
    return [np.arange(first, min(first + step, len(queries))) for first in range(0, len(queries), step)]


def fused_table(model: SequentialRecommender, histories: Histories) -> Scores:
    """Fused scores, float32 [len(histories), n_items], as of `score_fusion.fuse`."""
    n, nobody = len(histories), np.zeros((len(histories), 0), dtype=np.int64)
    weights = model.weights_at(histories.lengths)
    items = model.item_vectors()
    users = model.user_vectors(histories, items).float()
    scale, shift = _line(1 - sum(weights.values(), np.zeros(n, dtype=np.float32)), model.vector_moments(items)(users.numpy()))
    found = torch.mm(users * torch.from_numpy(scale)[:, None], items.float().T)
    bases, factors = [np.ones(model.n_items, dtype=np.float32)], [shift]
    added: list[tuple[SparseScorer, Scores]] = []
    for name, weight in weights.items():
        scorer = model.scorers[name]
        moments = scorer.candidate_scores(histories, nobody)[1]
        scale, shift = _line(weight, moments)
        factors[0] += shift
        if isinstance(scorer, SparseScorer):
            hidden = np.isneginf(scorer.base.values)
            bases.append(np.where(hidden, np.float32(0), scorer.base.values))
            factors.append(scale)
            if hidden.any():  # what can not be ranked counts as the lowest
                bases.append(hidden.astype(np.float32))
                factors.append(scale * moments.lowest.astype(np.float32))
            added.append((scorer, scale))
        elif isinstance(scorer, ALS):
            found.addmm_(torch.from_numpy(scorer.user_vectors(histories) * scale[:, None]), torch.from_numpy(scorer.vectors).T)
        else:
            found += torch.from_numpy(scorer.scores(histories) * scale[:, None])
    found.addmm_(torch.from_numpy(np.stack(factors, 1)), torch.from_numpy(np.stack(bases)))
    table: Scores = found.numpy()
    for scorer, scale in added:
        row, item, values = scorer.cells(histories)
        table[row, item] += scale[row] * values
    return table


def _line(weight: Scores, moments: Moments) -> tuple[Scores, Scores]:
    """Factor and summand that turn a member's scores into its part of the fused ones, float32 [n] each; see `Moments.standardise`."""
    scale = weight / np.where(moments.varies, moments.std, 1)
    return scale.astype(np.float32), (-scale * moments.mean).astype(np.float32)


def members_at(model: SequentialRecommender, histories: Histories, items: IntArray, scorers: Mapping[str, Scorer]) -> dict[str, Scores]:
    """Standardised scores of the network and of some scorers for some items, int64 [n, k]; member -> float32 [n, k]."""
    found = {NETWORK: model.network_candidates(histories, items)}
    found |= {name: scorer.candidate_scores(histories, items) for name, scorer in scorers.items()}
    return {name: moments.standardise(scores) for name, (scores, moments) in found.items()}


def best_of_each(
    model: SequentialRecommender, histories: Histories, scorers: Mapping[str, Scorer], k: int, *, exclude_seen: bool
) -> list[IntArray]:
    """The k best items of the network and of each scorer, int64 [n, k] each, in no order; an item may come twice where there are fewer."""
    found = [_best(model.network_scores(histories), histories, k, exclude_seen=exclude_seen)]
    for scorer in scorers.values():
        if isinstance(scorer, SparseScorer):
            found.append(scorer.best(histories, k, exclude_seen=exclude_seen))
        else:
            found.append(_best(scorer.scores(histories), histories, k, exclude_seen=exclude_seen))
    return found


def _best(table: Scores, histories: Histories, k: int, *, exclude_seen: bool) -> IntArray:
    if exclude_seen:
        mask_seen(table, histories)
    return top_k(table, k)
