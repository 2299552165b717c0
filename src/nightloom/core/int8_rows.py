"""Vectors as int8, a row by its own scale: a quarter of the memory, cosines within some thousandths. Needs numpy alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LARGEST = 127
"""Whole numbers of a row go from this with a minus to this; the largest number of a row becomes one of the two."""


def rounded_rows(vectors: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Vectors rounded to whole numbers, and what a row's are to be multiplied by. Rounded once more they stay the same.

    Args:
        vectors: float32 [..., dim]; a row of zeros stays one.

    Returns:
        int8 [..., dim], and float32 [...].
    """
    largest = np.abs(vectors).max(-1, initial=0).astype(np.float32)
    scale: NDArray[np.float32] = largest / np.float32(LARGEST)
    return np.rint(vectors / np.maximum(scale, np.float32(1e-32))[..., None]).astype(np.int8), scale


def whole_rows(whole: NDArray[np.int8], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """What `rounded_rows` gave, as numbers again, float32 [..., dim]."""
    return whole * scale[..., None]


def int8_rows(vectors: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Directions: rows of length one, rounded.

    Args:
        vectors: float32 [n, dim]; a row of zeros stays one.

    Returns:
        int8 [n, dim], and float32 [n] by which a row is multiplied to be of length one again.
    """
    whole = rounded_rows(vectors)[0]
    lengths = np.linalg.norm(whole.astype(np.float32), axis=1)
    scale: NDArray[np.float32] = np.where(lengths > 0, 1 / np.maximum(lengths, 1), 0).astype(np.float32)
    return whole, scale
