"""A check of the reasons: remove the events that count most, or keep them alone, and measure what happens to the recommendation.

Definitions are those of refined counterfactual metrics (Baklanov et al., SIGIR 2025) with supporting events alone and the ratio of softmax
probabilities, which are above zero. Events that were removed stay out of the ranking: nobody is recommended what they have had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightloom.serving.reasons.coalitions import Coalitions

BUDGETS = (1, 2, 3, 4, 5)
"""Numbers of events that are removed, or kept."""
STEPS = np.arange(0, 1.01, 0.1)
"""Shares of the history of an area."""
DRAWS = 8
"""Random removals that each removal is compared with."""
TOP = 5


@dataclass(frozen=True)
class Removal:
    """One user's recommendation after some events were removed; the random figures are means over draws.

    Attributes:
        removed: how many events.
        drop: fall of the logarithm of the item's probability without the events ranked first.
        drop_random: fall without as many random events.
        rank: the item's rank without the events ranked first, 1 is best.
        rank_random: mean rank without random events.
        still_first: whether it is still recommended first.
        still_first_random: share of the draws in which it is.
        pos_at_5: whether it is still among the first five; lower is better, as for `cdcg` and `deletion`.
        cdcg: 1 / log2(rank + 1).
        deletion: its probability without the events, over that with all.
        insertion: its probability with these events alone, over that with all; higher is better.
    """

    removed: int
    drop: float
    drop_random: float
    rank: int
    rank_random: float
    still_first: bool
    still_first_random: float
    pos_at_5: bool
    cdcg: float
    deletion: float
    insertion: float


def removals(game: Coalitions, item: int, ranked: Sequence[int], hidden: NDArray[np.integer], seed: int = 0) -> list[Removal]:
    """Remove the first 1, 2, ... 5 events of a ranking.

    Args:
        game: the history.
        item: the recommended item, dense id.
        ranked: positions in the history, the most important first; random events are drawn from these.
        hidden: items that are left out of the ranking, whatever was removed.
        seed: of the draws.

    Returns:
        One entry for each budget that leaves at least one ranked event.
    """
    random = np.random.default_rng(seed)
    budgets = [k for k in BUDGETS if k < len(ranked)]
    removed = [np.array(ranked[:k]) for k in budgets]
    removed += [random.choice(np.array(ranked), k, replace=False) for k in budgets for _ in range(DRAWS)]
    keep = np.ones((1 + len(removed), game.events), dtype=bool)
    for row, positions in enumerate(removed, start=1):
        keep[row, positions] = False
    alone = np.zeros((len(budgets), game.events), dtype=bool)
    for row, k in enumerate(budgets):
        alone[row, ranked[:k]] = True
    worths, ranks = game.outcomes(np.concatenate([keep, alone]), np.array([item]), hidden)
    worth, rank, kept = worths[: len(keep), 0], ranks[: len(keep), 0], worths[len(keep) :, 0]
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
                bool(rank[mine] <= TOP),
                float(1 / np.log2(rank[mine] + 1)),
                float(np.exp(worth[mine] - worth[0])),
                float(np.exp(kept[at] - worth[0])),
            )
        )
    return found


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


def measures(game: Coalitions, item: int, orders: Mapping[str, Sequence[int]], hidden: NDArray[np.integer]) -> dict[str, dict[str, float]]:
    """POS@5, CDCG, DEL and INS of some rankings of one history's events.

    Args:
        game: the history.
        item: the recommended item, dense id.
        orders: method -> the events that support the item, the most important first; where they are fewer than a budget, all of them count.
        hidden: as in `removals`.

    Returns:
        Method -> `pos_at_5`, `cdcg`, `del`, `ins`, means over `BUDGETS`, and `<metric>_area`, means over `STEPS` of the history.
    """
    sizes = [*BUDGETS, *np.round(STEPS * game.events).astype(int).tolist()]
    first = np.zeros((len(orders), len(sizes), game.events), dtype=bool)
    for row, order in enumerate(orders.values()):
        for column, size in enumerate(sizes):
            first[row, column, list(order[:size])] = True
    flat = first.reshape(-1, game.events)
    keep, where = np.unique(np.concatenate([np.ones((1, game.events), bool), ~flat, flat]), axis=0, return_inverse=True)
    worths, ranks = game.outcomes(keep, np.array([item]), hidden)
    worth, rank, where = worths[:, 0], ranks[:, 0], where.reshape(-1)
    whole, without, alone = where[0], where[1 : 1 + len(flat)], where[1 + len(flat) :]
    columns = {
        "pos_at_5": rank[without] <= TOP,
        "cdcg": 1 / np.log2(rank[without] + 1),
        "del": np.exp(worth[without] - worth[whole]),
        "ins": np.exp(worth[alone] - worth[whole]),
    }
    parts = {"": slice(0, len(BUDGETS)), "_area": slice(len(BUDGETS), None)}
    return {
        name: {
            f"{metric}{part}": float(values.reshape(len(orders), -1)[row, span].mean())
            for metric, values in columns.items()
            for part, span in parts.items()
        }
        for row, name in enumerate(orders)
    }
