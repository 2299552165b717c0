"""A check of the reasons: remove the events that count most, and measure what happens to the recommendation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightloom.core.recommender import Recommender
from nightloom.core.sequences import Histories
from nightloom.explain.games import above_mean, subsets

BUDGETS = (1, 2, 3)
"""Numbers of events that are removed."""
DRAWS = 8
"""Random removals that each removal is compared with."""


@dataclass(frozen=True)
class Removal:
    """One user's recommendation after some events were removed; the random figures are means over draws.

    Attributes:
        removed: how many events.
        drop: fall of the item's score (above the catalogue's mean) without the events ranked first.
        drop_random: fall without as many random events.
        rank: the item's rank without the events ranked first, 1 is best.
        rank_random: mean rank without random events.
        still_first: whether it is still recommended first.
        still_first_random: share of the draws in which it is.
    """

    removed: int
    drop: float
    drop_random: float
    rank: int
    rank_random: float
    still_first: bool
    still_first_random: float


def removals(model: Recommender, history: Histories, item: int, ranked: Sequence[int], seen: bool, seed: int = 0) -> list[Removal]:
    """Remove the first 1, 2, 3 events of a ranking, as POS@1 does at a fixed budget (SPINRec, AAAI 2026).

    Args:
        model: the recommender.
        history: exactly one.
        item: the recommended item, dense id.
        ranked: positions in the history, the most important first; random events are drawn from these.
        seen: whether items of the whole history are left out of the ranking, removed events included.
        seed: of the draws.

    Returns:
        One entry for each budget that leaves at least one ranked event.
    """
    random = np.random.default_rng(seed)
    budgets = [k for k in BUDGETS if k < len(ranked)]
    removed = [np.array(ranked[:k]) for k in budgets]
    removed += [random.choice(np.array(ranked), k, replace=False) for k in budgets for _ in range(DRAWS)]
    keep = np.ones((1 + len(removed), int(history.lengths[0])), dtype=bool)
    for row, positions in enumerate(removed, start=1):
        keep[row, positions] = False
    scores = model.scores(subsets(history, keep))
    worth, rank = above_mean(scores, item), _rank(scores, item, history.items[history.seen] if seen else np.zeros(0, dtype=np.int64))
    found = []
    for at, k in enumerate(budgets):
        draws = slice(1 + len(budgets) + at * DRAWS, 1 + len(budgets) + (at + 1) * DRAWS)
        mine = 1 + at
        found.append(
            Removal(
                k,
                float(worth[0] - worth[mine]),
                float(worth[0] - worth[draws].mean()),
                int(rank[mine]),
                float(rank[draws].mean()),
                bool(rank[mine] == 1),
                float((rank[draws] == 1).mean()),
            )
        )
    return found


def _rank(scores: NDArray[np.float32], item: int, seen: NDArray[np.integer]) -> NDArray[np.int64]:
    """1 + the number of items ranked before it; ties by dense id, as in the evaluation."""
    scores = scores.copy()
    scores[:, seen] = -np.inf
    mine = scores[:, [item]]
    before = (scores > mine) | ((scores == mine) & (np.arange(scores.shape[1]) < item))
    return 1 + before.sum(1)


def summarise(users: Sequence[Sequence[Removal]]) -> list[dict[str, Any]]:
    """Means over users, one entry a budget: `removed`, `users` and the fields of `Removal`."""
    table = []
    for k in BUDGETS:
        rows = [removal for found in users for removal in found if removal.removed == k]
        if rows:
            means = {
                name: float(np.mean([getattr(row, name) for row in rows])) for name in Removal.__dataclass_fields__ if name != "removed"
            }
            table.append({"removed": k, "users": len(rows)} | means)
    return table
