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


def fuse(members: Mapping[str, Scores], weights: Mapping[str, float]) -> Scores:
    """The weighted sum of standardised scores, of the whole catalogue or of candidates.

    Args:
        members: "network" and each scorer with a weight -> float32 [n, k], standardised.
        weights: scorer -> fusion weight, together at most 1; the network has the rest.

    Returns:
        float32 [n, k].
    """
    fused = np.float32(1 - sum(weights.values())) * members[NETWORK]
    for name, weight in weights.items():
        fused += np.float32(weight) * members[name]
    return fused


def standard(scores: Scores) -> Scores:
    """A full table of scores, float32 [n, items], standardised per query; -inf (can not be ranked) counts as the lowest."""
    return Moments.of(scores).standardise(scores)
