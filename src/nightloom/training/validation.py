"""Validation NDCG@10 over the whole catalogue: early stopping and the fusion weights go by it."""

from __future__ import annotations

import numpy as np
import torch

from nightloom.core.ranking import blocks, ndcg_sum
from nightloom.core.sequences import Queries
from nightloom.models.scorers.score_fusion import NETWORK
from nightloom.models.sequential.large_catalogue import FROM_ITEMS
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.training.distributed import World

MOST_QUERIES = 10_000
"""Most validation queries: more would make the figure no steadier than the next night's is."""

LARGE = 4
"""By how much fewer queries of a large catalogue are ranked at once: memory of a gigabyte is not worth the time."""
MOST_SCORES = 2_000_000_000
"""Scores of all those queries: of a catalogue of more than 200,000 items fewer are asked."""


def sample(queries: Queries, seed: int, n_items: int) -> Queries:
    """At most `MOST_QUERIES` of the queries, fewer where each ranks very many items, drawn by the seed, in order of history length."""
    rows, most = np.arange(len(queries)), min(MOST_QUERIES, MOST_SCORES // max(n_items, 1))
    if len(rows) > most:
        rows = np.random.default_rng(seed).choice(rows, most, replace=False)
    return queries.take(rows[np.argsort(queries.histories.lengths[rows], kind="stable")])


def network_ndcg(recommender: SequentialRecommender, queries: Queries, world: World, *, exclude_seen: bool) -> float:
    """NDCG@10 of the network alone; each worker ranks the queries of its part of the users, whose histories may be read in one pass."""
    total = torch.zeros(1, dtype=torch.float64)
    with recommender.unchanged():
        large = LARGE if recommender.n_items > FROM_ITEMS else 1
        for part in blocks(queries.take(np.flatnonzero(queries.users % world.size == world.rank)), large * recommender.n_items):
            total += ndcg_sum(recommender.network_scores(part.histories.packed()), part, exclude_seen=exclude_seen, model=NETWORK)
    return float(world.sum_(total.to(world.device))) / max(len(queries), 1)
