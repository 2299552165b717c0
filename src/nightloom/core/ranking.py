"""Ranks of held-out items over the whole catalogue, and the lists that users would be shown.

Needs numpy alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nightloom.core.errors import NightloomError
from nightloom.core.metrics import ndcg
from nightloom.core.ragged import owners
from nightloom.core.recommender import Recommender, mask_seen
from nightloom.core.sequences import Queries
from nightloom.core.threads import each, threads
from nightloom.core.top_k import best_items

TOP = 20
"""Length of the lists that are kept."""

BLOCK_CELLS = 1 << 25
"""Scores that are held at once (128 MiB)."""


@dataclass(frozen=True)
class Ranked:
    """How a recommender ranked some queries.

    Attributes:
        ranks: int32 [rows], in the order of the queries' targets; 1 is first over the whole catalogue less what
            the user has seen, 0 is not rankable.
        offsets: int64 [n + 1]; query i's ranks are `ranks[offsets[i]:offsets[i + 1]]`.
        top: int32 [n, min(TOP, items)], the best items, best first; -1 where fewer can be ranked.
    """

    ranks: NDArray[np.int32]
    offsets: NDArray[np.int64]
    top: NDArray[np.int32]


def ranks(model: Recommender, queries: Queries, *, exclude_seen: bool = True, batch: int = 256, name: str | None = None) -> Ranked:
    """Rank every held-out item over the whole catalogue; candidates are never sampled.

    Ties are broken by dense item id, as a stable sort would. An item can not be ranked when its score is -inf, or
    when the history has seen it and `exclude_seen` is set.

    Args:
        model: answers the queries' dense item ids.
        queries: histories and the items held out after them.
        exclude_seen: leave a history's items out of its ranking.
        batch: most histories scored at once; fewer for large catalogues, so that memory stays bounded.
        name: what errors call the model; None: its family.

    Raises:
        NightloomError: scores are NaN.
    """
    offsets = queries.target_offsets
    found = np.zeros(len(queries.targets), dtype=np.int32)
    top = np.full((len(queries), min(TOP, model.n_items)), -1, dtype=np.int32)
    step = max(1, min(batch, BLOCK_CELLS // threads() // max(model.n_items, 1)))

    def rank(first: int) -> int:
        """Fill in what a block of queries found, and say how many scores are NaN."""
        last = min(first + step, len(queries))
        histories = queries.histories.take(slice(first, last)).packed()
        scores = model.scores(histories)
        broken = nan_queries(scores)
        if broken:
            return broken
        if exclude_seen:
            mask_seen(scores, histories)
        top[first:last], _ = best_items(scores, top.shape[1])
        for row, query in enumerate(range(first, last)):
            for target in range(offsets[query], offsets[query + 1]):
                found[target] = _rank(scores[row], queries.targets[target])
        return 0

    refuse_nan(sum(each(rank, range(0, len(queries), step))), len(queries), name or model.family)
    return Ranked(found, offsets, top)


def nan_queries(scores: NDArray[np.float32]) -> int:
    """How many queries have a score that is NaN; `scores` is float32 [n, items]."""
    return int(np.isnan(scores).any(1).sum())


def refuse_nan(broken: int, queries: int, model: str) -> None:
    """Refuse scores of which some are NaN: ranked last, they would be misses that nobody can tell from a bad model's.

    Args:
        broken: queries with such a score.
        queries: all queries that were scored.
        model: whose scores they are.

    Raises:
        NightloomError: there are such queries.
    """
    if broken:
        raise NightloomError(
            f"{model}: the scores of {broken:,} of {queries:,} queries hold NaN, so they can not be ranked. Its weights or what it reads "
            "(vectors, times) are no numbers: fit it again, or leave it out."
        )


def _rank(scores: NDArray[np.float32], item: int) -> int:
    """1 + items that come before, which counting finds faster than sorting does; 0 for a score of -inf."""
    score = scores[item]
    if np.isneginf(score):
        return 0
    return 1 + int(np.count_nonzero(scores > score) + np.count_nonzero(scores[:item] == score))


def blocks(queries: Queries, n_items: int) -> Iterator[Queries]:
    """The queries in parts whose scores are held at once, made when their turn comes."""
    step = max(1, BLOCK_CELLS // max(n_items, 1))
    for first in range(0, len(queries), step):
        part = queries.take(np.arange(first, min(first + step, len(queries))))
        yield replace(part, histories=part.histories.packed())


def held_out_mask(queries: Queries, n_items: int) -> NDArray[np.bool_]:
    """Which items are held out of each query, bool [n, n_items]."""
    held = np.zeros((len(queries), n_items), dtype=bool)
    held[owners(queries.target_offsets), queries.targets] = True
    return held


def ndcg_sum(scores: NDArray[np.float32], queries: Queries, *, exclude_seen: bool, k: int = 10, model: str = "the model") -> float:
    """Sum over queries of NDCG@k; `scores`, float32 [n, items], are masked in place where seen items are left out.

    Raises:
        NightloomError: scores are NaN, also those of seen items; `model` says whose they are.
    """
    refuse_nan(nan_queries(scores), len(queries), model)
    if exclude_seen:
        mask_seen(scores, queries.histories.packed())
    return float(ndcg_of_scores(scores, held_out_mask(queries, scores.shape[1]), np.diff(queries.target_offsets), k).sum())


def ndcg_of_scores(
    scores: NDArray[np.float32], held: NDArray[np.bool_], many: NDArray[np.int64], k: int = 10, model: str = "the model"
) -> NDArray[np.float64]:
    """NDCG@k of each query, float64 [n].

    Args:
        scores: float32 [n, items].
        held: bool [n, items], the held-out items among them.
        many: int64 [n], held-out items of each query, those that are not among `items` too.
        k: length of the lists.
        model: what an error calls the model.

    Raises:
        NightloomError: scores are NaN. Among them the best items would not be found, and a hit be counted twice.
    """
    refuse_nan(nan_queries(scores), len(scores), model)
    items, _ = best_items(scores, k)
    query, place = np.nonzero(np.take_along_axis(held, np.maximum(items, 0), 1) & (items >= 0))
    return ndcg(place + 1, query, many, k)
