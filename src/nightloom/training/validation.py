"""Validation NDCG@10 over the whole catalogue: early stopping and the fusion weights go by it."""

from __future__ import annotations

import numpy as np
import torch

from nightloom.core.ranking import blocks, ndcg_sum
from nightloom.core.sequences import Queries
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.training.distributed import World

MOST_QUERIES = 10_000
"""Most validation queries: more would make the figure no steadier than the next night's is."""


def sample(queries: Queries, seed: int) -> Queries:
    """At most `MOST_QUERIES` of the queries, drawn by the seed, in order of history length."""
    rows = np.arange(len(queries))
    if len(rows) > MOST_QUERIES:
        rows = np.random.default_rng(seed).choice(rows, MOST_QUERIES, replace=False)
    return queries.take(rows[np.argsort(queries.histories.lengths[rows], kind="stable")])


def network_ndcg(recommender: SequentialRecommender, queries: Queries, world: World, *, exclude_seen: bool) -> float:
    """NDCG@10 of the network alone; each worker ranks the queries of its part of the users, whose histories may be read in one pass."""
    total = torch.zeros(1, dtype=torch.float64)
    for part in blocks(queries.take(np.flatnonzero(queries.users % world.size == world.rank)), recommender.n_items):
        total += ndcg_sum(recommender.network_scores(part.histories.packed()), part, exclude_seen=exclude_seen)
    return float(world.sum_(total.to(world.device))) / max(len(queries), 1)
