"""Scorer graph: a training-free graph of which item follows which.

A strong baseline too: it leaves many published sequence models behind, and is quick to rebuild.
"""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np

from nightloom.core.ragged import owners
from nightloom.core.sequences import Histories
from nightloom.models.scorers.item_graph import ItemGraph


class TransitionGraph(ItemGraph):
    """Weighted steps from item to item.

    For each user and each pair of events at most `reach` steps apart, T[i, j] grows by decay^(steps - 1). T[j, i] grows
    by `backward` times that. T is divided by the square root of popularity on both sides.

    Args:
        reach: steps ahead that count.
        decay: weight lost with each further step.
        backward: weight of a step taken backwards.
        recency: weight lost with each event of age.
        memory: latest events that are looked at.
    """

    family: ClassVar[str] = "graph"
    settings: ClassVar[tuple[str, ...]] = ("reach", "decay", "backward", "recency", "memory")

    def __init__(self, reach: int = 3, decay: float = 0.7, backward: float = 0.5, recency: float = 0.7, memory: int = 32) -> None:
        super().__init__(recency, memory)
        self.reach, self.decay, self.backward = reach, decay, backward

    def fit(self, train: Histories, n_items: int) -> Self:
        """Count the steps; only steps to (or, backwards, from) positive events count."""
        items, owner = train.items.astype(np.int64), owners(train.offsets)
        edges, weights = [np.zeros(0, np.int64)], [np.zeros(0)]
        for step in range(1, self.reach + 1):
            same = owner[step:] == owner[:-step]
            i, j = items[:-step][same], items[step:][same]
            gain = self.decay ** (step - 1)
            for source, target, counts, gain_here in (
                (i, j, train.positive[step:][same], gain),
                (j, i, train.positive[:-step][same], gain * self.backward),
            ):
                kept = counts & (source != target)
                edges.append(source[kept] * n_items + target[kept])
                weights.append(np.full(int(kept.sum()), gain_here))
        edge, position = np.unique(np.concatenate(edges), return_inverse=True)
        weight = np.bincount(position, np.concatenate(weights), minlength=len(edge))
        source, target = np.divmod(edge, max(n_items, 1))
        seen = np.maximum(np.bincount(items, minlength=n_items), 1)
        popularity = np.bincount(items[train.positive], minlength=n_items)
        return self._take(source, target, weight / np.sqrt(seen[source] * seen[target]), popularity)
