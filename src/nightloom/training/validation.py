"""NDCG@10 over the whole catalogue: what early stopping looks at, and what the fusion is chosen by."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from nightloom.data.sequences import Queries
from nightloom.models.base import mask_seen
from nightloom.models.loom import Loom
from nightloom.training.distributed import World

MOST_USERS = 10_000
"""Validation users that are asked: more would make the figure no steadier than the next night's is."""

BLOCK_CELLS = 1 << 25
"""Scores that are held at once."""


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
    owner = np.repeat(np.arange(len(queries)), np.diff(queries.target_offsets))
    held = np.zeros(scores.shape, dtype=bool)
    held[owner, queries.targets] = True
    return float(gains_of(scores, held, np.diff(queries.target_offsets), k).sum())


def gains_of(scores: NDArray[np.float32], held: NDArray[np.bool_], many: NDArray[np.int64], k: int = 10) -> NDArray[np.float64]:
    """NDCG@k of each query, float64 [n].

    Args:
        scores: float32 [n, items].
        held: bool [n, items], the held-out items among them.
        many: int64 [n], held-out items of each query, those that are not among `items` too.
        k: length of the lists.
    """
    k = min(k, scores.shape[1])
    best = torch.topk(torch.from_numpy(scores), k).indices.numpy()
    discount = 1 / np.log2(np.arange(2, k + 2))
    gains: NDArray[np.float64] = (np.take_along_axis(held, best, 1) * discount).sum(1) / np.cumsum(discount)[np.minimum(many, k) - 1]
    return gains


def network_ndcg(loom: Loom, queries: Queries, world: World, *, exclude_seen: bool) -> float:
    """NDCG@10 of the network alone, each worker asking its share of the queries."""
    total = torch.zeros(1, dtype=torch.float64)
    for part in blocks(take(queries, np.arange(world.rank, len(queries), world.size)), loom.n_items):
        total += ndcg_sum(loom.network_scores(part.histories), part, exclude_seen=exclude_seen)
    return float(world.sum_(total.to(world.device))) / max(len(queries), 1)


def blocks(queries: Queries, n_items: int) -> list[Queries]:
    """The queries in parts whose scores are held at once."""
    step = max(1, BLOCK_CELLS // max(n_items, 1))
    return [take(queries, np.arange(first, min(first + step, len(queries)))) for first in range(0, len(queries), step)]
