"""An index of many vectors for inner products: cells of vectors that lie together, of which the most promising are scanned, in int8.

Cells are found by k-means on a sample. A query takes cells by the inner product with their centre, the best first, until enough vectors
are scanned; so clustered vectors are found by a small part of the work, and vectors without any structure only by a full scan.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightloom.core.int8_rows import rounded_rows, whole_rows
from nightloom.core.ragged import offsets_of
from nightloom.serving.model.jit import kernel
from nightloom.serving.model.rows import inner

FloatArray = NDArray[np.float32]
EACH, SAMPLED, ROUNDS = 2, 64, 6
"""Cells for each unit of the square root of how many vectors there are, vectors that are sampled for each cell, rounds of k-means."""
REACH = 0.4
"""How far beyond its centre, in its spread, a cell is taken to reach towards a query."""
BLOCK = 16_384
"""Vectors that are assigned to cells at once."""


class Cells:
    """An index whose vectors stay in their cells; columns that cells are not made by may change.

    Args:
        vectors: float32 [n, dim].
        near: columns by which vectors lie together; the others count in inner products alone.
    """

    def __init__(self, vectors: FloatArray, near: int | None = None) -> None:
        n = len(vectors)
        self.near = vectors.shape[1] if near is None else near
        kept = np.ascontiguousarray(vectors[:, : self.near])
        self.centres = _centres(kept, min(n, EACH * max(int(np.sqrt(n)), 1)))
        owner = _nearest(kept, self.centres)
        self.items: NDArray[np.int64] = np.argsort(owner, kind="stable")
        self.offsets = offsets_of(np.bincount(owner, minlength=len(self.centres)))
        apart = np.square(kept - self.centres[owner]).sum(1)
        counts = np.maximum(np.diff(self.offsets), 1)
        self.spread = np.sqrt(np.bincount(owner, apart, minlength=len(self.centres)) / counts).astype(np.float32)
        self._places = np.argsort(self.items, kind="stable")
        self._whole, self._scale = rounded_rows(vectors[self.items])

    def __len__(self) -> int:
        return len(self.items)

    @property
    def nbytes(self) -> int:
        """Memory of the index."""
        return sum(one.nbytes for one in (self.centres, self.items, self._places, self.offsets, self._whole, self._scale))

    def change(self, item: int, column: int, value: float) -> None:
        """Set a number of an item's vector, in one of the columns after those by which vectors lie together."""
        place = self._places[item]
        row = whole_rows(self._whole[place], self._scale[place])
        row[column] = value
        self._whole[place], self._scale[place] = rounded_rows(row)

    def nearest(self, query: FloatArray, k: int, share: float, allowed: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """The items with the largest inner products, best first, int64 [at most k].

        Args:
            query: float32 [dim].
            k: how many.
            share: of the vectors that are looked at, 1 for all; what `allowed` leaves out is passed over, and not counted.
            allowed: bool [n or more], by item; None: all.
        """
        mask = np.ones(0, dtype=np.bool_) if allowed is None else allowed
        open_ = len(self) if allowed is None else int(np.count_nonzero(mask[: len(self)]))
        near = query[: self.near]
        promise = self.centres @ near + REACH * float(np.linalg.norm(near)) * self.spread
        order = np.argsort(-promise, kind="stable")
        k = min(k, open_)
        items, scores = np.empty(k, np.int64), np.full(k, -np.inf, np.float32)
        least = min(max(int(np.ceil(share * open_)), 4 * k), open_)
        many = _scan(self._whole, self._scale, self.items, self.offsets, order, query, mask, least, items, scores)
        return items[:many][np.argsort(-scores[:many], kind="stable")]


def _centres(vectors: FloatArray, many: int) -> FloatArray:
    """k-means on a sample, float32 [many, dim]; a cell that has lost all takes a vector of the sample."""
    random = np.random.default_rng(0)
    sample = vectors[np.sort(random.choice(len(vectors), min(len(vectors), SAMPLED * many), replace=False))]
    centres = sample[random.choice(len(sample), many, replace=False)].copy()
    for _ in range(ROUNDS):
        owner = _nearest(sample, centres)
        counts = np.bincount(owner, minlength=many)
        order = np.argsort(owner, kind="stable")
        full = np.flatnonzero(counts)
        centres[full] = np.add.reduceat(sample[order], offsets_of(counts)[:-1][full]) / counts[full, None]
        empty = np.flatnonzero(counts == 0)
        centres[empty] = sample[random.integers(0, len(sample), len(empty))]
    return centres


def _nearest(vectors: FloatArray, centres: FloatArray) -> NDArray[np.int64]:
    """The nearest centre of each vector, int64 [n]."""
    found, lengths = np.empty(len(vectors), np.int64), np.square(centres).sum(1) / 2
    for first in range(0, len(vectors), BLOCK):
        found[first : first + BLOCK] = (vectors[first : first + BLOCK] @ centres.T - lengths).argmax(1)
    return found


@kernel
def _down(items: Any, scores: Any, at: Any, many: Any) -> None:
    """Restore a heap, its smallest first, whose entry `at` may be too large for its place."""
    while True:
        least = at
        for child in (2 * at + 1, 2 * at + 2):
            if child < many and scores[child] < scores[least]:
                least = child
        if least == at:
            return
        scores[at], scores[least] = scores[least], scores[at]
        items[at], items[least] = items[least], items[at]
        at = least


@kernel
def _scan(whole: Any, scale: Any, ids: Any, offsets: Any, order: Any, query: Any, mask: Any, least: Any, items: Any, scores: Any) -> Any:
    """The best of the first cells that hold `least` allowed vectors, as a heap in `items` and `scores`; gives how many there are."""
    k, seen, many = len(items), 0, 0
    for cell in order:
        if seen >= least:
            break
        for place in range(offsets[cell], offsets[cell + 1]):
            item = ids[place]
            if len(mask) and not mask[item]:
                continue
            seen += 1
            score = inner(whole[place], query) * scale[place]
            if many < k:
                at = many
                many += 1
                scores[at], items[at] = score, item
                while at > 0 and scores[(at - 1) // 2] > scores[at]:
                    up = (at - 1) // 2
                    scores[at], scores[up] = scores[up], scores[at]
                    items[at], items[up] = items[up], items[at]
                    at = up
            elif score > scores[0]:
                scores[0], items[0] = score, item
                _down(items, scores, 0, many)
    return many
