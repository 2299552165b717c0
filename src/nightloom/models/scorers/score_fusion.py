"""Late fusion: the weighted sum of the standardised scores of the network and its scorers.

A member's scores are standardised per query by their moments over the whole catalogue. These are known in closed form too
(`Scorer.candidate_scores`, `nightloom.core.moments.VectorMoments`), so fused scores of a few candidates are those of the full table.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from nightloom.core.moments import Moments

NETWORK = "network"
"""Name of the network among the members of a fusion."""

Scores = NDArray[np.float32]
HALF_KNOWN = 20
"""Events of a history at which its user counts as half known."""


def fuse(members: Mapping[str, Scores], weights: Mapping[str, float | Scores]) -> Scores:
    """The weighted sum of standardised scores, of the whole catalogue or of candidates.

    Args:
        members: "network" and each scorer with a weight -> float32 [n, k], standardised.
        weights: scorer -> fusion weight, one for all queries or float32 [n], together at most 1; the network has the rest.

    Returns:
        float32 [n, k].
    """
    fused = _by_query(1 - sum(weights.values())) * members[NETWORK]
    for name, weight in weights.items():
        fused += _by_query(weight) * members[name]
    return fused


def _by_query(weight: float | Scores) -> NDArray[np.float32]:
    """A weight that is multiplied with [n, k]."""
    return np.asarray(weight, dtype=np.float32).reshape(-1, 1)


def known_share(lengths: NDArray[np.integer]) -> NDArray[np.float32]:
    """How much is known of a user, from 0 without a history towards 1: float32 of the shape of `lengths`, events of each history."""
    found: NDArray[np.float32] = (lengths / (lengths + HALF_KNOWN)).astype(np.float32)
    return found


def weights_at(
    weights: Mapping[str, float], newcomer_weights: Mapping[str, float], lengths: NDArray[np.integer]
) -> dict[str, NDArray[np.float32]]:
    """Fusion weights for histories of some lengths: between those of an empty and those of a long history.

    Args:
        weights: scorer -> fusion weight for long histories.
        newcomer_weights: the same scorers -> fusion weight without a history.
        lengths: int [n], events of each history.

    Returns:
        Scorer -> float32 [n].
    """
    known = known_share(lengths)
    return {
        name: (newcomer_weights[name] + (weight - newcomer_weights[name]) * known).astype(np.float32) for name, weight in weights.items()
    }


def standard(scores: Scores) -> Scores:
    """A full table of scores, float32 [n, items], standardised per query; -inf (can not be ranked) counts as the lowest."""
    return Moments.of(scores).standardise(scores)
