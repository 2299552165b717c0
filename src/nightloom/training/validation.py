"""NDCG@10 over the whole catalogue: what early stopping looks at, and what the graph's weight is chosen by."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from nightloom.data.sequences import Queries
from nightloom.models.base import mask_seen
from nightloom.models.loom import Loom, fuse
from nightloom.training.distributed import World

MOST_USERS = 10_000
"""Validation users that are asked: more would make the figure no steadier than the next night's is."""

BLOCK_CELLS = 1 << 25
"""Scores that are held at once."""

WEIGHTS = tuple(round(step / 20, 2) for step in range(21))
"""Graph weights that are tried."""


def sample(queries: Queries, seed: int) -> Queries:
    """At most `MOST_USERS` of the queries, drawn by the seed, in order of history length."""
    rows = np.arange(len(queries))
    if len(rows) > MOST_USERS:
        rows = np.random.default_rng(seed).choice(rows, MOST_USERS, replace=False)
    return take(queries, rows[np.argsort(queries.histories.lengths[rows], kind="stable")])


def take(queries: Queries, rows: NDArray[np.int64]) -> Queries:
    """Some of the queries, in that order."""
    lengths = np.diff(queries.target_offsets)[rows]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    flat = np.arange(offsets[-1]) + np.repeat(queries.target_offsets[:-1][rows] - offsets[:-1], lengths)
    return Queries(queries.users[rows], queries.histories.take(rows), offsets, queries.targets[flat])


def ndcg_sum(scores: NDArray[np.float32], queries: Queries, *, exclude_seen: bool, k: int = 10) -> float:
    """Sum over queries of NDCG@k (binary gains; the ideal is over the smaller of held-out items and k)."""
    if exclude_seen:
        mask_seen(scores, queries.histories)
    k = min(k, scores.shape[1])
    best = torch.topk(torch.from_numpy(scores), k).indices.numpy()
    n, owner = len(queries), np.repeat(np.arange(len(queries)), np.diff(queries.target_offsets))
    held_out = np.zeros(scores.shape, dtype=bool)
    held_out[owner, queries.targets] = True
    discount = 1 / np.log2(np.arange(2, k + 2))
    gains = (np.take_along_axis(held_out, best, 1) * discount).sum(1)
    ideal = np.cumsum(discount)[np.minimum(np.bincount(owner, minlength=n), k) - 1]
    return float((gains / ideal).sum())


def network_ndcg(loom: Loom, queries: Queries, world: World, *, exclude_seen: bool) -> float:
    """NDCG@10 of the network alone, each worker asking its share of the queries."""
    total = torch.zeros(1, dtype=torch.float64)
    for part in _blocks(take(queries, np.arange(world.rank, len(queries), world.size)), loom.n_items):
        total += ndcg_sum(loom.network_scores(part.histories), part, exclude_seen=exclude_seen)
    return float(world.sum_(total.to(world.device))) / max(len(queries), 1)


def weigh_graph(loom: Loom, queries: Queries, weights: tuple[float, ...], *, exclude_seen: bool) -> dict[float, float]:
    """NDCG@10 of the fused scores for each of some graph weights."""
    totals = dict.fromkeys(weights, 0.0)
    for part in _blocks(queries, loom.n_items):
        network, graph = loom.network_scores(part.histories), loom.graph.scores(part.histories)
        for weight in weights:
            totals[weight] += ndcg_sum(fuse(network, graph, weight), part, exclude_seen=exclude_seen)
    return {weight: total / max(len(queries), 1) for weight, total in totals.items()}


def _blocks(queries: Queries, n_items: int) -> list[Queries]:
    step = max(1, BLOCK_CELLS // max(n_items, 1))
    return [take(queries, np.arange(first, min(first + step, len(queries)))) for first in range(0, len(queries), step)]
