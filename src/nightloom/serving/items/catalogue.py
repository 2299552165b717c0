"""The items that are ranked: ids, vectors with their moments, and which of them were removed or are blocked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nightloom.core.moments import VectorMoments
from nightloom.serving.items.growing import Growing
from nightloom.serving.model.rows import GrowingRows, Rows, taken

FloatArray = NDArray[np.float32]


class LiveCatalogue:
    """A catalogue that takes items at its end. An item that is removed or blocked keeps its dense id, and is not recommended.

    Args:
        ids: item ids by dense id.
        rows: their vectors.
        mean: float64 [dim], of the vectors.
        covariance: float64 [dim, dim].
    """

    def __init__(self, ids: Sequence[str], rows: Rows, mean: NDArray[np.float64], covariance: NDArray[np.float64]) -> None:
        self.ids, self.index = list(ids), {item_id: dense for dense, item_id in enumerate(ids)}
        self.trained = len(self.ids)
        self._rows, self._alive = GrowingRows(rows), Growing(np.ones(len(self.ids), dtype=np.bool_))
        self._everything, self._blocked = Growing(np.arange(len(self.ids))), Growing(np.zeros(len(self.ids), dtype=np.bool_))
        self.mean, self.covariance = mean, covariance

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def rows(self) -> Rows:
        """Vectors of all items, as kernels read them."""
        return self._rows.rows

    @property
    def vectors(self) -> FloatArray:
        """The same as float32 [items, dim]; a copy where they are kept in int8."""
        return taken(self.rows, slice(None))

    @property
    def everything(self) -> NDArray[np.int64]:
        """All dense ids, int64 [items]."""
        return self._everything.array

    def put(self, item_id: str, vector: FloatArray) -> tuple[int, bool]:
        """Take an item; its dense id, and whether it is a new one.

        One that training knew keeps the vector that it learned. One that came by day gets the vector.
        """
        dense = self.index.get(item_id)
        if dense is not None:
            self._alive.array[dense] = True
            if dense >= self.trained:
                self._rows.set(dense, vector)
                moments = VectorMoments(self.vectors)
                self.mean, self.covariance = moments.mean, moments.covariance
            return dense, False
        n = len(self.ids)
        apart = vector - self.mean
        self.mean = self.mean + apart / (n + 1)
        self.covariance = (self.covariance + np.outer(apart, apart) / (n + 1)) * (n / (n + 1))
        self.index[item_id] = n
        self.ids.append(item_id)
        self._rows.append(vector)
        for one, value in ((self._alive, True), (self._everything, n), (self._blocked, False)):
            one.append(value)
        return n, True

    def remove(self, item_id: str) -> bool:
        """Recommend an item no more; false where there is none of the id."""
        dense = self.index.get(item_id)
        if dense is None or not self._alive.array[dense]:
            return False
        self._alive.array[dense] = False
        return True

    def block(self, dense: int, blocked: bool) -> None:
        """Say whether an item is blocked, whatever else becomes of it."""
        self._blocked.array[dense] = blocked

    def open_to(self, allowed: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        """Items that may be recommended, bool [items]: allowed ones, neither removed nor blocked. A mask may be shorter."""
        alive = self._alive.array & ~self._blocked.array
        if allowed is None:
            return alive
        if len(allowed) == len(alive):
            return alive & allowed
        longer = np.zeros(len(alive), dtype=np.bool_)
        longer[: len(allowed)] = allowed[: len(alive)]
        return alive & longer
