"""Scorers whose scores are the same for every history but for a few items: the base of all that need no training.

Scores are a base plus sparse cells. So a few candidates can be scored, and the moments of the whole catalogue told, without
touching the items that the history says nothing of.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from nightloom.core.moments import Moments
from nightloom.core.ragged import offsets_of
from nightloom.core.recommender import Scorer
from nightloom.core.sequences import Histories

IntArray = NDArray[np.int64]
Scores = NDArray[np.float32]

BLOCK_CELLS = 1 << 22
"""Scores, edges or pairs that are held at once."""

DENSE = 4
"""Cells a summand up to which a table of all cells is faster than sorting the summands."""


class Cells(NamedTuple):
    """What is added to the base, in some cells of the table of queries and items.

    Attributes:
        keys: int64 [cells], row * n_items + item, ascending and distinct.
        values: float32 [cells].
    """

    keys: IntArray
    values: Scores


class Base:
    """Scores that every history starts from, and what closed forms need to know of them.

    Args:
        values: float32 [n_items]; -inf where an item can not be ranked.
    """

    def __init__(self, values: Scores) -> None:
        self.values = values

    @cached_property
    def ascending(self) -> IntArray:
        """Items that can be ranked, lowest score first, int64."""
        order = np.argsort(self.values, kind="stable")
        return order[np.isfinite(self.values[order])]

    @cached_property
    def places(self) -> IntArray:
        """Each item's place in `ascending`, int64 [n_items]; -1 where it can not be ranked."""
        places = np.full(len(self.values), -1, dtype=np.int64)
        places[self.ascending] = np.arange(len(self.ascending))
        return places

    @cached_property
    def centre(self) -> float:
        """Mean over the items that can be ranked."""
        return float(self.values[self.ascending].mean(dtype=np.float64)) if len(self.ascending) else 0.0

    @cached_property
    def squares(self) -> float:
        """Sum of squared distances from `centre` over the items that can be ranked."""
        return float(np.square(self.values[self.ascending] - np.float64(self.centre)).sum())

    def moments(self, cells: Cells, n: int) -> Moments:
        """Moments of the scores of n queries, from the sums over the base and the cells alone."""
        n_items, rankable = len(self.values), len(self.ascending)
        if not rankable:
            return Moments(np.zeros(n), np.zeros(n), np.zeros(n))
        row, item = np.divmod(cells.keys, n_items)
        base = self.values[item]
        kept = np.isfinite(base)
        row, item, base, scores = row[kept], item[kept], base[kept], (base + cells.values)[kept]
        before, after = base - np.float64(self.centre), scores - np.float64(self.centre)
        lowest = self._lowest(row, item, scores, n)
        hidden = n_items - rankable  # items that can not be ranked count as the lowest
        below = lowest - self.centre
        total = np.bincount(row, after - before, minlength=n) + hidden * below
        squares = self.squares + np.bincount(row, after**2 - before**2, minlength=n) + hidden * below**2
        shift = total / n_items
        return Moments(self.centre + shift, np.sqrt(np.maximum(squares / n_items - shift**2, 0)), lowest)

    def _lowest(self, row: IntArray, item: IntArray, scores: Scores, n: int) -> NDArray[np.float64]:
        """The lowest score of each query: among its cells, or that of the first item of `ascending` that is in none of them."""
        many = np.bincount(row, minlength=n)
        lowest = np.full(n, np.inf)
        np.minimum.at(lowest, row, scores)
        place = self.places[item]
        near = place < many[row]  # of m cells, none but the first m places can be the reason that the first free place comes later
        row, place = row[near], place[near]
        order = np.lexsort((place, row))
        row, place = row[order], place[order]
        rank = np.arange(len(row)) - offsets_of(np.bincount(row, minlength=n))[row]
        free = np.bincount(row[rank == place], minlength=n)  # places 0, 1, 2 ... are taken up to the first gap
        rest = np.append(self.values[self.ascending].astype(np.float64), np.inf)
        return np.minimum(lowest, rest[free])


class SparseScorer(Scorer):
    """A scorer that says for each history what it adds to which items.

    Attributes:
        base: scores before anything is added; set by `fit`, `load` and `reindex`.
    """

    base: Base

    @abstractmethod
    def work(self, histories: Histories) -> IntArray:
        """Summands of each history, int64 [n]: what bounds the memory of `cells`."""

    @abstractmethod
    def cells(self, histories: Histories) -> Cells:
        """What the histories add to the base."""

    def scores(self, histories: Histories) -> Scores:
        """The whole catalogue's scores, float32 [len(histories), n_items]; -inf where an item can not be ranked."""
        out = np.tile(self.base.values, (len(histories), 1))
        for rows, part in self._parts(histories, np.maximum(self.work(histories), self.n_items)):
            keys, values = self.cells(part)
            out[rows].reshape(-1)[keys] += values
        return out

    def candidate_scores(self, histories: Histories, candidates: IntArray) -> tuple[Scores, Moments]:
        """As `Scorer.candidate_scores`, from the base and the histories' cells alone."""
        scores = self.base.values[candidates]
        moments: list[Moments] = []
        for rows, part in self._parts(histories, self.work(histories) + candidates.shape[1]):
            cells = self.cells(part)
            scores[rows] += look_up(cells, np.arange(len(part))[:, None] * self.n_items + candidates[rows])
            moments.append(self.base.moments(cells, len(part)))
        return scores, Moments.joined(moments) if moments else self.base.moments(NO_CELLS, 0)

    @staticmethod
    def _parts(histories: Histories, work: IntArray) -> Iterator[tuple[slice, Histories]]:
        for rows in runs(work):
            yield rows, histories if rows == slice(0, len(histories)) else histories.take(rows)


class Untrained(SparseScorer):
    """A scorer that reads the query alone: only the size of the catalogue is kept, and the base is zero."""

    def fit(self, train: Histories, n_items: int) -> Self:  # noqa: ARG002  # the verb of every recommender
        """Keep the size of the catalogue."""
        self.n_items, self.base = n_items, Base(np.zeros(n_items, dtype=np.float32))
        return self

    def reindex(self, rows: IntArray, n_items: int) -> Self:  # noqa: ARG002
        """The same over another catalogue."""
        return type(self)().fit(Histories.of_items([]), n_items)

    def save(self, folder: Path) -> None:
        """Write `<family>.npz`."""
        np.savez(folder / f"{self.family}.npz", n_items=self.n_items)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        with np.load(folder / f"{cls.family}.npz", allow_pickle=False) as arrays:
            return cls().fit(Histories.of_items([]), int(arrays["n_items"]))


NO_CELLS = Cells(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))


def runs(work: IntArray) -> Iterator[slice]:
    """Cut rows into runs, each of at most `BLOCK_CELLS` summands or of one row.

    Args:
        work: int64 [rows], summands of each row.
    """
    ends = np.cumsum(work)
    first = 0
    while first < len(work):
        done = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + BLOCK_CELLS, "right")))
        yield slice(first, last)
        first = last


def summed(keys: IntArray, values: NDArray[Any], size: int) -> tuple[IntArray, NDArray[np.float64]]:
    """Distinct keys, ascending, and the sum of the values of each; a sum of zero may be left out.

    Args:
        keys: int64 [summands], each below `size`.
        values: float [summands].
        size: cells of the whole table.
    """
    if size <= DENSE * len(keys):
        total = np.bincount(keys, values, minlength=size).astype(np.float64, copy=False)
        distinct: IntArray = np.flatnonzero(total)
        return distinct, total[distinct]
    distinct, place = np.unique(keys, return_inverse=True)
    return distinct, np.bincount(place, values, minlength=len(distinct)).astype(np.float64, copy=False)


def look_up(cells: Cells, keys: IntArray) -> Scores:
    """The values of some cells, float32 of the keys' shape; zero where a cell is empty."""
    if not len(cells.keys):
        return np.zeros(keys.shape, dtype=np.float32)
    at = np.minimum(np.searchsorted(cells.keys, keys), len(cells.keys) - 1)
    return np.where(cells.keys[at] == keys, cells.values[at], np.float32(0))
