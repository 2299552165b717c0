"""Summaries of a history: its positive events, and the recency weight of each item."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import sparse

from nightloom.core.ragged import ages, offsets_among, owners
from nightloom.core.sequences import Histories


def positive_events(histories: Histories) -> Histories:
    """The same histories, positive events alone."""
    kept = histories.positive
    return replace(histories.of_events(kept, offsets_among(histories.offsets, kept)), links=None)


def recency_bags(histories: Histories, n_items: int, recency: float) -> sparse.csr_matrix:
    """How much of each history each item is: positive events weighted by recency^age, the weights of a history summing to 1.

    Args:
        histories: one row each of the result.
        n_items: size of the catalogue.
        recency: weight that an event loses with each later one; 1 makes all weigh alike.

    Returns:
        float32 [len(histories), n_items]; an empty history has an empty row.
    """
    liked = positive_events(histories)
    owner = owners(liked.offsets)
    weights = np.power(recency, ages(liked.offsets), dtype=np.float64)
    weights /= np.bincount(owner, weights, minlength=len(liked))[owner]
    return sparse.csr_matrix((weights.astype(np.float32), (owner, liked.items)), shape=(len(liked), n_items))
