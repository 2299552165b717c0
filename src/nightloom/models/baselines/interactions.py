"""Which items each history has positive events on, and how popular items are: what most baselines start from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from nightloom.core.ragged import owners
from nightloom.core.sequences import Histories

TIE_BREAK = 1e-6
"""Weight of popularity (scaled to 1) beside a model's own score: it orders ties and empty histories, and changes nothing else."""

BLOCK_CELLS = 1 << 24
"""Cells of a dense block of scores or similarities that is in memory at once (64 MiB)."""


def interactions(histories: Histories, n_items: int) -> sparse.csr_matrix:
    """Which items each history has positive events on: float32 [len(histories), n_items], ones and zeros."""
    owner = owners(histories.offsets)[histories.positive]
    items = histories.items[histories.positive]
    matrix = sparse.csr_matrix((np.ones(len(items), dtype=np.float32), (owner, items)), shape=(len(histories), n_items))
    matrix.data[:] = 1  # repeats were summed
    return matrix


def popularity_prior(counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """What is added to every score, float32 [items]: a trace of popularity, and -inf where an item was never seen in training.

    Args:
        counts: int64 [items], positive events of each item in training.
    """
    trace = TIE_BREAK * counts / max(counts.max(initial=0), 1)
    return np.where(counts > 0, trace, -np.inf).astype(np.float32)
