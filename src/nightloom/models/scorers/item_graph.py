"""Weighted edges from item to item, and how a history is scored by them: the base of the graphs that need no training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nightloom.core.ragged import ages, gather, owners
from nightloom.core.sequences import Histories
from nightloom.core.top_k import top_k
from nightloom.models.scorers.sparse import Base, SparseScorer, Summands

TRACE = 1e-6
"""Weight of popularity (scaled to 1) beside the edges' score: orders ties and empty histories, changes nothing else."""

Edges = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.floating]]
"""Source, target and weight of each edge, ordered by source and target."""


class ItemGraph(SparseScorer):
    """A sparse matrix of edges; a history's score is the sum of its events' rows, weighted by recency^age.

    A trace of popularity is the base. Items without a positive event can not be ranked.

    Args:
        recency: weight lost with each event of age.
        memory: latest events that are looked at.
        min_support: users that an edge rests on, where it rests on users: an edge of few would give their histories away.
    """

    settings: ClassVar[tuple[str, ...]]
    """Names of the constructor's arguments, kept with the edges."""

    def __init__(self, recency: float, memory: int, min_support: int = 1) -> None:
        self.recency, self.memory, self.min_support = recency, memory, min_support

    def _take(self, source: NDArray[np.int64], target: NDArray[np.int64], weight: NDArray[np.floating], counts: NDArray[np.int64]) -> Self:
        """Take edges, ordered by source, and how often each item was seen; an item never seen can not be ranked."""
        offsets = np.searchsorted(source, np.arange(len(counts) + 1)).astype(np.int64)
        return self._keep(offsets, target.astype(np.int32), weight.astype(np.float32), counts.astype(np.int64))

    def _keep(
        self, offsets: NDArray[np.int64], targets: NDArray[np.int32], weights: NDArray[np.float32], popularity: NDArray[np.int64]
    ) -> Self:
        """Keep arrays as `save` writes them, and the base that follows from them."""
        self.offsets, self.targets, self.weights, self.popularity = offsets, targets, weights, popularity
        self.n_items = len(popularity)
        trace = TRACE * popularity / max(int(popularity.max(initial=0)), 1)
        self.base = Base(np.where(popularity > 0, trace, -np.inf).astype(np.float32))
        return self

    def work(self, histories: Histories) -> NDArray[np.int64]:
        """Edges of each history, int64 [n]."""
        row, item, _ = self._latest(histories)
        degree = self.offsets[item + 1] - self.offsets[item]
        return np.bincount(row, degree, minlength=len(histories)).astype(np.int64)

    def summands(self, histories: Histories) -> Summands:
        """The edges from the histories' latest events, weighted by recency^age."""
        row, item, weight = self._latest(histories)
        degree = self.offsets[item + 1] - self.offsets[item]
        edge = gather(self.offsets[item], degree)
        keys = np.repeat(row * self.n_items, degree) + self.targets[edge]
        return Summands(keys, self.weights[edge] * np.repeat(weight, degree))

    def _latest(self, histories: Histories) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]]:
        """Row, item and weight of the events that are looked at."""
        age = ages(histories.offsets)
        near = age < self.memory
        return owners(histories.offsets)[near], histories.items[near], np.power(self.recency, age[near], dtype=np.float64)

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
        other = type(self)(**self._settings())
        return other._take(source[kept][order], target[kept][order], self.weights[kept][order], counts)

    def save(self, folder: Path) -> None:
        """Write `<family>.npz`."""
        self._write(folder, {})

    def _write(self, folder: Path, more: Mapping[str, NDArray[Any]]) -> None:
        """Write the edges, and more arrays with them."""
        arrays = {name: getattr(self, name) for name in ("offsets", "targets", "weights", "popularity")}
        everything: dict[str, Any] = {**arrays, **more, **self._settings()}
        np.savez(folder / f"{self.family}.npz", **everything)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        with np.load(folder / f"{cls.family}.npz", allow_pickle=False) as content:
            graph = cls(**{name: content[name].item() for name in cls.settings if name in content})  # one of before had fewer settings
            return graph._keep(*(content[name] for name in ("offsets", "targets", "weights", "popularity")))

    def _settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.settings}


def joined(parts: list[Edges]) -> Edges:
    """Edges of several ascending runs of sources as one."""
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
    source, target, weight = (np.concatenate(one) for one in zip(*parts, strict=True))
    return source, target, weight


def strongest(block: NDArray[np.float32], first: int, k: int) -> Edges:
    """The k largest positive values of each row, as edges from row to column; ties by column; an item is no neighbour of itself.

    Args:
        block: float32 [rows, items], written to.
        first: the item of the first row.
        k: most edges a row.
    """
    here = np.arange(len(block))
    block[here, first + here] = 0
    columns = np.sort(top_k(block, k), axis=1)
    values = np.take_along_axis(block, columns, axis=1)
    kept = values > 0
    return first + np.nonzero(kept)[0], columns[kept], values[kept]
