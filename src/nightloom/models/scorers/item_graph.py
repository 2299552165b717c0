"""Weighted edges from item to item, and how a history is scored by them: the base of the graphs that need no training."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nightloom.core.ragged import ages, gather, owners
from nightloom.core.recommender import Scorer
from nightloom.core.sequences import Histories
from nightloom.core.top_k import top_k

TRACE = 1e-6
"""Weight of popularity (scaled to 1) beside the edges' score: orders ties and empty histories, changes nothing else."""

BLOCK_CELLS = 1 << 22
"""Score cells or edges that are held at once."""


Edges = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.floating]]
"""Source, target and weight of each edge, ordered by source and target."""


class ItemGraph(Scorer):
    """A sparse matrix of edges; a history's score is the sum of its events' rows, weighted by recency^age.

    Args:
        recency: weight lost with each event of age.
        memory: latest events that are looked at.
    """

    settings: ClassVar[tuple[str, ...]]
    """Names of the constructor's arguments, kept with the edges."""

    def __init__(self, recency: float, memory: int) -> None:
        self.recency, self.memory = recency, memory

    def _take(self, source: NDArray[np.int64], target: NDArray[np.int64], weight: NDArray[np.floating], counts: NDArray[np.int64]) -> Self:
        """Take edges, ordered by source, and how often each item was seen; an item never seen can not be ranked."""
        self.n_items, self.popularity = len(counts), counts.astype(np.int64)
        self.offsets = np.searchsorted(source, np.arange(self.n_items + 1)).astype(np.int64)
        self.targets, self.weights = target.astype(np.int32), weight.astype(np.float32)
        return self

    def strengths(self, histories: Histories) -> NDArray[np.float32]:
        """What the edges alone say: float32 [len(histories), n_items], zero where none leads."""
        out = np.empty((len(histories), self.n_items), dtype=np.float32)
        step = max(1, BLOCK_CELLS // max(self.n_items, 1))
        for first in range(0, len(histories), step):
            part = histories.take(slice(first, first + step))
            age = ages(part.offsets)
            near = age < self.memory
            row, item = owners(part.offsets)[near], part.items[near]
            weight = np.power(self.recency, age[near], dtype=np.float64)
            out[first : first + step] = self._spread(row, item, weight, len(part))
        return out

    def scores(self, histories: Histories) -> NDArray[np.float32]:
        """Strengths with a trace of popularity; -inf for items never seen."""
        trace = TRACE * self.popularity / max(int(self.popularity.max(initial=0)), 1)
        return self.strengths(histories) + np.where(self.popularity > 0, trace, -np.inf).astype(np.float32)

    def reindex(self, rows: NDArray[np.int64], n_items: int) -> Self:
        """The same edges over another catalogue.

        Args:
            rows: int64 [n_items of this graph], each item's dense id there, -1 where it is gone.
            n_items: size of the other catalogue.
        """
        source = rows[owners(self.offsets)]
        target = rows[self.targets]
        kept = (source >= 0) & (target >= 0)
        order = np.lexsort((target[kept], source[kept]))
        counts = np.zeros(n_items, dtype=np.int64)
        counts[rows[rows >= 0]] = self.popularity[rows >= 0]
        return copy(self)._take(source[kept][order], target[kept][order], self.weights[kept][order], counts)

    def save(self, folder: Path) -> None:
        """Write `<family>.npz`."""
        settings = {name: getattr(self, name) for name in self.settings}
        arrays = {name: getattr(self, name) for name in ("offsets", "targets", "weights", "popularity")}
        np.savez(folder / f"{self.family}.npz", **arrays, **settings)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        with np.load(folder / f"{cls.family}.npz", allow_pickle=False) as content:
            graph = cls(**{name: content[name].item() for name in cls.settings})
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
            edge = gather(self.offsets[item[part]], degrees)
            cell = np.repeat(row[part] * self.n_items, degrees) + self.targets[edge]
            total += np.bincount(cell, self.weights[edge] * np.repeat(weight[part], degrees), minlength=len(total))
        return total.reshape(n, self.n_items).astype(np.float32)


def joined(parts: list[Edges]) -> Edges:
    """Edges of several ascending runs of sources as one."""
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
    source, target, weight = (np.concatenate(one) for one in zip(*parts, strict=True))
    return source, target, weight


def strongest(block: NDArray[np.float32], k: int) -> Edges:
    """The k largest positive values of each row, as edges from row to column, ties by column."""
    columns = np.sort(top_k(block, k), axis=1)
    values = np.take_along_axis(block, columns, axis=1)
    kept = values > 0
    return np.nonzero(kept)[0], columns[kept], values[kept]
