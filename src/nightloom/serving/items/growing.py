"""Arrays that grow at the end: what an item, an edge or an event by day is appended to without a rebuild."""

from __future__ import annotations

import math
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from nightloom.core.ragged import offsets_of
from nightloom.serving.model.jit import kernel

Scalar = TypeVar("Scalar", bound=np.generic)
SPARE = 8
"""An array that is full grows by an eighth, and by 64 at least."""


def aligned(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """A copy that begins at a multiple of 64 bytes: kernels go through such matrices up to twice as fast."""
    found = aligned_empty(values.shape)
    found[...] = values
    return found


def aligned_empty(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """An array without values that begins at a multiple of 64 bytes."""
    flat = np.empty(math.prod(shape) + 16, dtype=np.float32)
    first = -flat.__array_interface__["data"][0] % 64 // 4
    return flat[first : first + len(flat) - 16].reshape(shape)


def aligned_bytes(shape: tuple[int, ...]) -> NDArray[np.int8]:
    """The same of int8."""
    found: NDArray[np.int8] = aligned_empty((-(-int(np.prod(shape)) // 4),)).view(np.int8)
    return found[: int(np.prod(shape))].reshape(shape)


def more_room(n: int) -> int:
    """Room of an array that holds n and is full."""
    return n + max(n // SPARE, 64)


class Growing(Generic[Scalar]):
    """A table that takes rows at its end.

    Args:
        values: array [n, ...], copied.
    """

    def __init__(self, values: NDArray[Scalar]) -> None:
        self._room = np.array(values, order="C")
        self.n = len(values)

    @property
    def array(self) -> NDArray[Scalar]:
        """What is there, [n, ...]: the array itself, which may be written to; one taken before `append` may be another one."""
        return self._room[: self.n]

    def append(self, row: Any) -> None:
        """Take a row at the end."""
        if self.n == len(self._room):
            self._room = wider(self._room, more_room(self.n))
        self._room[self.n] = row
        self.n += 1

    def remove(self, place: int) -> None:
        """Take a row away; those behind it move up."""
        self._room[place : self.n - 1] = self._room[place + 1 : self.n].copy()
        self.n -= 1


class EdgeRows:
    """A sparse matrix whose rows grow: row i is the edges `[start[i], start[i] + length[i])`, in no order.

    A row that is full moves to the end of the pool with twice its room.

    Args:
        offsets: int64 [n + 1].
        targets: int32 [edges].
        weights: float32 [edges].
    """

    def __init__(self, offsets: NDArray[np.int64], targets: NDArray[np.int32], weights: NDArray[np.float32]) -> None:
        lengths = np.diff(offsets).astype(np.int64)
        self._start, self._length, self._room = Growing(offsets[:-1].astype(np.int64)), Growing(lengths), Growing(lengths)
        self.used = np.array([len(targets)], dtype=np.int64)
        self.targets = np.array(targets, dtype=np.int32)
        self.weights = np.array(weights, dtype=np.float32)

    @property
    def start(self) -> NDArray[np.int64]:
        """Where each row begins, int64 [n]."""
        return self._start.array

    @property
    def length(self) -> NDArray[np.int64]:
        """Edges of each row, int64 [n]."""
        return self._length.array

    def row(self, source: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Targets and weights of a row: the arrays themselves."""
        first = self.start[source]
        span = slice(first, first + self.length[source])
        return self.targets[span], self.weights[span]

    def append(self) -> None:
        """Take an empty row."""
        for one, value in ((self._start, self.used[0]), (self._length, 0), (self._room, 0)):
            one.append(value)

    def add(self, sources: NDArray[np.int64], targets: NDArray[np.int64], gains: NDArray[np.float32]) -> None:
        """Add to the weights of some edges, int64 [edges] twice and float32 [edges]; those that are not there are made."""
        done = 0
        while True:
            arrays = (self.start, self.length, self._room.array, self.used, self.targets, self.weights)
            done = _add(*arrays, sources, targets, gains, done)
            if done == len(sources):
                return
            needed = more_room(len(self.targets)) + 2 * int(self.length[sources[done]])
            self.targets, self.weights = wider(self.targets, needed), wider(self.weights, needed)

    def clear(self, source: int) -> None:
        """Take all edges of a row away."""
        self.length[source] = 0

    def packed(self) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
        """Offsets, targets and weights without room between rows; targets ascend within a row."""
        rows = [self.row(source) for source in range(len(self.start))]
        orders = [np.argsort(targets) for targets, _ in rows]
        targets, weights = ([part[order] for part, order in zip(side, orders, strict=True)] for side in zip(*rows, strict=True))
        return offsets_of(self.length), np.concatenate(targets), np.concatenate(weights)


def wider(values: NDArray[Any], n: int) -> NDArray[Any]:
    """A copy with room for n."""
    found = np.zeros((n, *values.shape[1:]), values.dtype)
    found[: len(values)] = values
    return found


@kernel
def _add(start: Any, length: Any, room: Any, used: Any, targets: Any, weights: Any, sources: Any, ends: Any, gains: Any, done: Any) -> Any:
    """Add edges from number `done` on; the number of the first one for which the pool has no room, or of all."""
    for number in range(done, len(sources)):
        source, end, gain = sources[number], np.int32(ends[number]), gains[number]
        first, many = start[source], length[source]
        found: Any = np.int64(-1)
        for at in range(first, first + many):
            if targets[at] == end:
                found = at
                break
        if found >= 0:
            weights[found] += gain
            continue
        if many == room[source]:
            wanted = max(2 * many, 8)
            if used[0] + wanted > len(targets):
                return number
            targets[used[0] : used[0] + many] = targets[first : first + many]
            weights[used[0] : used[0] + many] = weights[first : first + many]
            start[source], room[source] = used[0], wanted
            first = used[0]
            used[0] += wanted
        targets[first + many], weights[first + many] = end, gain
        length[source] = many + 1
    return len(sources)
