"""Family graph: a training-free graph of which item follows which.

A strong floor (it leaves many published sequence models behind), Loom's partner in late fusion, and quick to rebuild.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nightloom.data.sequences import Histories
from nightloom.models.base import Recommender

TRACE = 1e-6
"""Weight of popularity (scaled to 1) beside the graph's score: orders ties and empty histories, changes nothing else."""

BLOCK_CELLS = 1 << 22
"""Score cells or graph edges that are held at once."""


class TransitionGraph(Recommender):
    """Weighted steps from item to item.

    For each user and each pair of events at most `reach` steps apart, T[i, j] grows by decay^(steps - 1) and T[j, i]
    by `backward` times that; T is divided by the square root of popularity on both sides. A history is scored by its
    events' rows of T, weighted by recency^age.

    Args:
        reach: steps ahead that count.
        decay: weight lost with each further step.
        backward: weight of a step taken backwards.
        recency: weight lost with each event of age.
        memory: latest events that are looked at.
    """

    family: ClassVar[str] = "graph"

    def __init__(self, reach: int = 3, decay: float = 0.7, backward: float = 0.5, recency: float = 0.7, memory: int = 32) -> None:
        self.reach, self.decay, self.backward, self.recency, self.memory = reach, decay, backward, recency, memory

    def fit(self, train: Histories, n_items: int) -> Self:
        """Count the steps; only steps to (or, backwards, from) positive events count."""
        self.n_items = n_items
        items, owner = train.items.astype(np.int64), np.repeat(np.arange(len(train)), train.lengths)
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
        self.popularity = np.bincount(items[train.positive], minlength=n_items).astype(np.int64)
        self.targets = target.astype(np.int32)
        self.weights = (weight / np.sqrt(seen[source] * seen[target])).astype(np.float32)
        self.offsets = np.searchsorted(source, np.arange(n_items + 1)).astype(np.int64)
        return self

    def strengths(self, histories: Histories) -> NDArray[np.float32]:
        """What the graph alone says: float32 [len(histories), n_items], zero where no edge leads."""
        out = np.empty((len(histories), self.n_items), dtype=np.float32)
        step = max(1, BLOCK_CELLS // max(self.n_items, 1))
        for first in range(0, len(histories), step):
            part = histories.take(slice(first, first + step))
            age = np.repeat(part.offsets[1:], part.lengths) - 1 - np.arange(len(part.items))
            near = age < self.memory
            row, item = np.repeat(np.arange(len(part)), part.lengths)[near], part.items[near]
            weight = np.power(self.recency, age[near], dtype=np.float64)
            out[first : first + step] = self._spread(row, item, weight, len(part))
        return out

    def scores(self, histories: Histories) -> NDArray[np.float32]:
        """Strengths with a trace of popularity; -inf for items never seen in training."""
        trace = TRACE * self.popularity / max(int(self.popularity.max(initial=0)), 1)
        return self.strengths(histories) + np.where(self.popularity > 0, trace, -np.inf).astype(np.float32)

    def onto(self, rows: NDArray[np.int64], n_items: int) -> TransitionGraph:
        """The same graph over another catalogue.

        Args:
            rows: int64 [n_items of this graph], each item's dense id there, -1 where it is gone.
            n_items: size of the other catalogue.
        """
        other = TransitionGraph(self.reach, self.decay, self.backward, self.recency, self.memory)
        source = rows[np.repeat(np.arange(self.n_items), np.diff(self.offsets))]
        target = rows[self.targets]
        kept = (source >= 0) & (target >= 0)
        order = np.lexsort((target[kept], source[kept]))
        other.n_items = n_items
        other.targets, other.weights = target[kept][order].astype(np.int32), self.weights[kept][order]
        other.offsets = np.searchsorted(source[kept][order], np.arange(n_items + 1)).astype(np.int64)
        other.popularity = np.zeros(n_items, dtype=np.int64)
        other.popularity[rows[rows >= 0]] = self.popularity[rows >= 0]
        return other

    def save(self, folder: Path) -> None:
        """Write `graph.npz`."""
        settings = {name: getattr(self, name) for name in ("reach", "decay", "backward", "recency", "memory")}
        arrays = {name: getattr(self, name) for name in ("offsets", "targets", "weights", "popularity")}
        np.savez(folder / "graph.npz", **arrays, **settings)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        with np.load(folder / "graph.npz", allow_pickle=False) as content:
            graph = cls(*(content[name].item() for name in ("reach", "decay", "backward", "recency", "memory")))
            for name in ("offsets", "targets", "weights", "popularity"):
                setattr(graph, name, content[name])
        graph.n_items = len(graph.popularity)
        return graph

    def _spread(self, row: NDArray[np.int64], item: NDArray[np.int32], weight: NDArray[np.float64], n: int) -> NDArray[np.float32]:
        """Sum `weight` times each item's edges into its row, float32 [n, n_items], a bounded number of edges at a time."""
        total = np.zeros(n * self.n_items)
        degree = np.diff(self.offsets)[item]
        cuts = np.flatnonzero(np.diff(np.cumsum(degree) // BLOCK_CELLS)) + 1
        for part in np.split(np.arange(len(item)), cuts):
            degrees = degree[part]
            edge = np.arange(degrees.sum()) + np.repeat(self.offsets[item[part]] - np.cumsum(degrees) + degrees, degrees)
            cell = np.repeat(row[part] * self.n_items, degrees) + self.targets[edge]
            total += np.bincount(cell, self.weights[edge] * np.repeat(weight[part], degrees), minlength=len(total))
        return total.reshape(n, self.n_items).astype(np.float32)
