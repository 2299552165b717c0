"""Scorer graph: a training-free graph of which item follows which.

A strong baseline too: it leaves many published sequence models behind, and is quick to rebuild.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nightloom.core.ragged import owners
from nightloom.core.sequences import Histories
from nightloom.models.scorers.item_graph import ItemGraph


class TransitionGraph(ItemGraph):
    """Weighted steps from item to item.

    For each user and each pair of events at most `reach` steps apart, T[i, j] grows by decay^(steps - 1). T[j, i] grows
    by `backward` times that. T is divided by the square root of how often both items were seen. These counts are kept, so that
    the service can undo the division and let every event count.

    Args:
        reach: steps ahead that count.
        decay: weight lost with each further step.
        backward: weight of a step taken backwards.
        recency: weight lost with each event of age.
        memory: latest events that are looked at.
        min_support: users that a step must have been taken by, one at least.
    """

    family: ClassVar[str] = "graph"
    settings: ClassVar[tuple[str, ...]] = ("reach", "decay", "backward", "recency", "memory", "min_support")

    def __init__(
        self,
        reach: int = 3,
        decay: float = 0.7,
        backward: float = 0.5,
        recency: float = 0.7,
        memory: int = 32,
        min_support: int = 1,
    ) -> None:
        super().__init__(recency, memory, min_support)
        self.seen: NDArray[np.int64] | None = None
        """Events of each item, positive or not, int64 [n_items]; None in a model of before they were kept."""
        self.reach, self.decay, self.backward = reach, decay, backward

    def fit(self, train: Histories, n_items: int) -> Self:
        """Count the steps; only steps to (or, backwards, from) positive events count."""
        items, owner = train.items.astype(np.int64), owners(train.offsets)
        edges, weights, users = [np.zeros(0, np.int64)], [np.zeros(0)], [np.zeros(0, np.int64)]
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
                users.append(owner[step:][same][kept])
        edge, position = np.unique(np.concatenate(edges), return_inverse=True)
        weight = np.bincount(position, np.concatenate(weights), minlength=len(edge))
        if self.min_support > 1:
            takers = np.unique(position * np.int64(max(len(train), 1)) + np.concatenate(users)) // max(len(train), 1)
            common = np.bincount(takers, minlength=len(edge)) >= self.min_support
            edge, weight = edge[common], weight[common]
        source, target = np.divmod(edge, max(n_items, 1))
        self.seen = np.bincount(items, minlength=n_items)
        seen = np.maximum(self.seen, 1)
        popularity = np.bincount(items[train.positive], minlength=n_items)
        return self._take(source, target, weight / np.sqrt(seen[source] * seen[target]), popularity)

    def reindex(self, rows: NDArray[np.int64], n_items: int) -> Self:
        """The same edges and counts over another catalogue; see `ItemGraph.reindex`."""
        other = super().reindex(rows, n_items)
        if self.seen is not None:
            other.seen = np.zeros(n_items, dtype=np.int64)
            other.seen[rows[rows >= 0]] = self.seen[rows >= 0]
        return other

    def save(self, folder: Path) -> None:
        """Write `graph.npz`."""
        self._write(folder, {} if self.seen is None else {"seen": self.seen})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        graph = super().load(folder)
        with np.load(folder / f"{cls.family}.npz", allow_pickle=False) as content:
            graph.seen = content.get("seen")
        return graph
