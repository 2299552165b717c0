"""Scorers whose scores are the same for every history but for a few items: the base of all that need no training.

A score is a base plus what the history adds. So candidates are scored, and the moments of the whole catalogue's scores are found,
from the items that the history adds to.
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
FloatArray = NDArray[np.float64]
Scores = NDArray[np.float32]

BLOCK_CELLS = 1 << 22
"""Scores, edges or pairs that are held at once."""

MANY_ITEMS = 200_000
"""Items above which no table of queries and items is made for some candidates."""
DENSE = 4
"""Cells of the table for each summand up to which moments are taken of the table, not of the summands' cells."""


class Summands(NamedTuple):
    """What is added up in cells of the table of queries and items; only items that can be ranked are added to.

    Attributes:
        keys: int64 [summands], row * n_items + item; a cell may come often.
        values: float [summands].
    """

    keys: IntArray
    values: NDArray[np.floating[Any]]


NOTHING = Summands(np.zeros(0, dtype=np.int64), np.zeros(0))


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
    def descending(self) -> IntArray:
        """Items that can be ranked, highest score first, ties by item id, int64."""
        order = np.argsort(-self.values, kind="stable")
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

    def moments(self, row: IntArray, item: IntArray, added: NDArray[Any], n: int) -> Moments:
        """Moments of the scores of n queries, from sums over the base and over the cells that differ from it.

        Args:
            row: int64 [cells], the query of each cell.
            item: int64 [cells], its item; a cell comes once.
            added: float [cells], what is added to the base there.
            n: queries.
        """
        n_items, hidden = len(self.values), len(self.values) - len(self.ascending)
        if hidden == n_items:
            return Moments(np.zeros(n), np.zeros(n), np.zeros(n))
        added = added.astype(np.float64)
        before = self.values[item] - np.float64(self.centre)
        lowest = self._lowest(row, item, added, n) if hidden else np.full(n, self.centre)
        below = lowest - self.centre  # items that can not be ranked count as the lowest
        shift = (np.bincount(row, added, minlength=n) + hidden * below) / n_items
        squares = self.squares + np.bincount(row, added * (2 * before + added), minlength=n) + hidden * below**2
        return Moments(self.centre + shift, np.sqrt(np.maximum(squares / n_items - shift**2, 0)), lowest)

    def _lowest(self, row: IntArray, item: IntArray, added: FloatArray, n: int) -> FloatArray:
        """The lowest score of each query: among its cells, or that of the first item of `ascending` that is in none of them."""
        lowest = np.full(n, np.inf)
        np.minimum.at(lowest, row, self.values[item] + added)
        many, place = np.bincount(row, minlength=n), self.places[item]
        slots = offsets_of(many + 1)  # m cells leave one of the first m + 1 places free
        taken = np.zeros(slots[-1], dtype=bool)
        near = place < many[row]
        taken[slots[row[near]] + place[near]] = True
        free = np.flatnonzero(~taken)
        first = free[np.searchsorted(free, slots[:-1])] - slots[:-1]
        return np.minimum(lowest, self._rest[first])

    @cached_property
    def _rest(self) -> FloatArray:
        """Scores that can be ranked, lowest first, then infinity."""
        return np.append(self.values[self.ascending].astype(np.float64), np.inf)


class SparseScorer(Scorer):
    """A scorer that says for each history what it adds to which items.

    Attributes:
        base: scores before anything is added; set by `fit`, `load` and `reindex`.
    """

    base: Base

    @abstractmethod
    def work(self, histories: Histories) -> IntArray:
        """Summands of each history, int64 [n]: what bounds the memory of `summands`."""

    @abstractmethod
    def summands(self, histories: Histories) -> Summands:
        """What the histories add to the base."""

    def added(self, sums: FloatArray) -> Scores:
        """What sums of summands add to the base, float32 of any shape; zero for zero."""
        return sums.astype(np.float32)

    def scores(self, histories: Histories) -> Scores:
        """The whole catalogue's scores, float32 [len(histories), n_items]; -inf where an item can not be ranked."""
        out = np.empty((len(histories), self.n_items), dtype=np.float32)
        for rows, sums, _ in self._sums(histories):
            np.add(self.base.values, self.added(sums), out=out[rows])
        return out

    def candidate_scores(self, histories: Histories, candidates: IntArray) -> tuple[Scores, Moments]:
        """As `Scorer.candidate_scores`, without looking at items that the histories say nothing of."""
        if self.n_items > MANY_ITEMS:
            return self._by_cells(histories, candidates)
        scores = self.base.values[candidates]
        moments = [self.base.moments(*(NOTHING.keys,) * 3, 0)]
        for rows, sums, keys in self._sums(histories):
            scores[rows] += self.added(np.take_along_axis(sums, candidates[rows], 1))
            if sums.size <= DENSE * len(keys):
                moments.append(Moments.of(self.base.values + self.added(sums)))
            else:
                cells = distinct(keys, sums.size)
                row, item = np.divmod(cells, self.n_items)
                moments.append(self.base.moments(row, item, self.added(sums.reshape(-1)[cells]), len(sums)))
        return scores, Moments.joined(moments)

    def _by_cells(self, histories: Histories, candidates: IntArray) -> tuple[Scores, Moments]:
        """As `candidate_scores`, with no table of queries and items: in a large catalogue filling it with zeros would take longest."""
        row, item, added = self.cells(histories)
        scores, keys = self.base.values[candidates], np.append(row * self.n_items + item, -1)
        wanted = np.arange(len(histories))[:, None] * self.n_items + candidates
        at = np.searchsorted(keys[:-1], wanted)
        scores += np.where(keys[at] == wanted, np.append(added, np.float32(0))[at], np.float32(0))
        return scores, self.base.moments(row, item, added, len(histories))

    def cells(self, histories: Histories) -> tuple[IntArray, IntArray, Scores]:
        """What the histories add, cell by cell: rows and items, int64 [cells], ascending, and float32 [cells]."""
        keys, values = self.summands(histories)
        cell, place = np.unique(keys, return_inverse=True)
        row, item = np.divmod(cell, self.n_items)
        return row, item, self.added(np.bincount(place, values, minlength=len(cell)).astype(np.float64, copy=False))

    def best(self, histories: Histories, k: int, *, exclude_seen: bool) -> IntArray:
        """The k best items of each history, int64 [n, k], best first, ties by item id, without a look at the whole catalogue.

        Of the items that a history adds nothing to, the first ones of the base are enough. Where fewer than k can be ranked, the best
        one fills up the rest.
        """
        row, item, values = self.cells(histories)
        ends = np.searchsorted(row, np.arange(len(histories) + 1))
        found = np.zeros((len(histories), k), dtype=np.int64)
        for one in range(len(histories)):
            seen = histories.items[histories.offsets[one] : histories.offsets[one + 1]]
            seen = seen[histories.seen[histories.offsets[one] : histories.offsets[one + 1]]] if exclude_seen else seen[:0]
            mine, plus = item[ends[one] : ends[one + 1]], values[ends[one] : ends[one + 1]]
            others = self.base.descending[: k + len(mine) + len(seen)]
            others = others[~np.isin(others, mine)]
            there = np.concatenate([mine, others])
            scores = self.base.values[there] + np.concatenate([plus, np.zeros(len(others), dtype=np.float32)])
            open_to = np.isfinite(scores) & ~np.isin(there, seen)
            there, scores = there[open_to], scores[open_to]
            best = there[np.lexsort((there, -scores))[:k]]
            found[one, : len(best)] = best
            found[one, len(best) :] = best[0] if len(best) else 0
        return found

    def _sums(self, histories: Histories) -> Iterator[tuple[slice, FloatArray, IntArray]]:
        """Runs of queries, their sums [rows, n_items], and the keys of the cells that were added to.

        Memory of cells that nothing is added to is zero pages, which the operating system does not touch.
        """
        for rows in runs(np.maximum(self.work(histories), self.n_items)):
            part = histories if rows == slice(0, len(histories)) else histories.take(rows)
            keys, values = self.summands(part)
            sums = np.bincount(keys, values, minlength=len(part) * self.n_items).astype(np.float64, copy=False)
            yield rows, sums.reshape(len(part), self.n_items), keys


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


def distinct(keys: IntArray, size: int) -> IntArray:
    """Each key once, in no order, without sorting and without a look at the other keys.

    Args:
        keys: int64 [n], each below `size`.
        size: of the table of all keys.
    """
    last, order = np.empty(size, dtype=np.int64), np.arange(len(keys))
    last[keys] = order
    return keys[last[keys] == order]
