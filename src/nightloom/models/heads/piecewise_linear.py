"""Piecewise linear encoding: how far a number lies in each bin between two quantiles of its column.

Gorishniy, Rubachev and Babenko, On Embeddings for Numerical Features in Tabular Deep Learning, NeurIPS 2022.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
PARTS = 8
"""Bins of a column."""


def quantiles(known: NDArray[np.floating]) -> FloatArray:
    """Bin edges of a column: its distinct quantiles, float64; none without rows."""
    return np.unique(np.quantile(known, np.linspace(0, 1, PARTS + 1))) if len(known) else np.zeros(0)


def piecewise_linear(column: NDArray[np.floating], bin_edges: FloatArray) -> FloatArray:
    """How far each number lies in each bin, 0 to 1, float64 [rows, bins]; 0 where it is missing."""
    if len(bin_edges) < 2:
        return np.zeros((len(column), 0))
    return np.nan_to_num(np.clip((column[:, None] - bin_edges[:-1]) / np.diff(bin_edges), 0, 1))
