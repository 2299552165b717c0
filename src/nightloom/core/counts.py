"""Counts by number, of which more numbers come to be known as more rows are read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def added(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum of two arrays of counts, of which either may be longer."""
    long, short = (one, other) if len(one) >= len(other) else (other, one)
    found = long.copy()
    found[: len(short)] += short
    return found
