"""Ragged arrays: rows of different lengths, one after the other in one flat array, with the offsets where each row starts.

Row i of `values` is `values[offsets[i]:offsets[i + 1]]`. Needs numpy alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


def offsets_of(lengths: NDArray[Any] | Sequence[int]) -> IntArray:
    """Where rows of these lengths start, int64 [n + 1]; the last offset is the number of elements.

    Args:
        lengths: integers [n], or bool [n] where each row has one element or none.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def gather(starts: IntArray, lengths: NDArray[Any]) -> IntArray:
    """Flat places of the ranges `starts[i]:starts[i] + lengths[i]`, one after the other: int64 [sum of lengths]."""
    offsets = offsets_of(lengths)
    return np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)


def owners(offsets: IntArray) -> IntArray:
    """The row that each element belongs to, int64 [elements]."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def places(offsets: IntArray) -> IntArray:
    """Each element's place in its row, int64 [elements]; 0 for the first."""
    return np.arange(offsets[-1]) - np.repeat(offsets[:-1], np.diff(offsets))


def ages(offsets: IntArray) -> IntArray:
    """Elements that follow each element in its row, int64 [elements]; 0 for the last."""
    return np.repeat(offsets[1:], np.diff(offsets)) - 1 - np.arange(offsets[-1])


def offsets_among(offsets: IntArray, kept: NDArray[np.bool_]) -> IntArray:
    """Offsets of the same rows once only some elements are kept, int64 [n + 1].

    Args:
        offsets: int64 [n + 1].
        kept: bool [elements].
    """
    return offsets_of(kept)[offsets]


def spans(offsets: IntArray, most: int) -> Iterator[tuple[int, int]]:
    """Rows in spans of at most `most` elements, the first and one past the last of each; a longer row is a span of its own."""
    first = 0
    while first < len(offsets) - 1:
        last = int(np.searchsorted(offsets, offsets[first] + most, side="right")) - 1
        first, before = max(last, first + 1), first
        yield before, first
