"""Scorers: what is fused late with the network's scores. They need no training and can be rebuilt whenever events come in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nightloom.core.recommender import Scorer
from nightloom.core.sequences import Histories
from nightloom.models.scorers.cooccurrence import Cooccurrence
from nightloom.models.scorers.friends import Friends
from nightloom.models.scorers.graph import TransitionGraph
from nightloom.models.scorers.popularity import Popularity
from nightloom.models.scorers.repeats import Repeats
from nightloom.models.scorers.text_neighbours import TextNeighbours

if TYPE_CHECKING:
    from nightloom.models.sequential.content_fusion import ItemContent

CLASSES: dict[str, type[Scorer]] = {
    one.family: one for one in (TransitionGraph, Cooccurrence, TextNeighbours, Popularity, Repeats, Friends)
}
"""Name -> class."""

NETWORK = "network"
"""Name of the network among the members of a fusion."""

Scores = NDArray[np.float32]


def fit_scorers(names: Sequence[str], train: Histories, content: ItemContent) -> dict[str, Scorer]:
    """Build some scorers over a catalogue.

    Args:
        names: keys of `CLASSES`.
        train: what they learn from.
        content: the catalogue, on the CPU.
    """
    found: dict[str, Scorer] = {}
    for name in names:
        one = CLASSES[name]()
        if isinstance(one, TextNeighbours):
            one.read(content.text, content.has_text)
        found[name] = one.fit(train, len(content))
    return found


def fuse(network: Scores, scorers: Mapping[str, Scores], weights: Mapping[str, float]) -> Scores:
    """Late fusion of score tables, each standardised per query.

    Args:
        network: float32 [n, items].
        scorers: name -> float32 [n, items].
        weights: each scorer's share, together at most 1; the network has the rest.

    Returns:
        float32 [n, items].
    """
    fused = (1 - sum(weights.values())) * standard(network)
    for name, weight in weights.items():
        fused += weight * standard(scorers[name])
    return fused.astype(np.float32)


def standard(scores: Scores) -> Scores:
    """Scores of each query less their mean, by their standard deviation; -inf (can not be ranked) counts as the lowest."""
    finite = np.isfinite(scores)
    if not finite.all():
        lowest = np.where(finite, scores, np.inf).min(1, initial=np.inf, keepdims=True)
        scores = np.where(finite, scores, np.where(np.isfinite(lowest), lowest, 0))
    spread = scores.std(1, keepdims=True)
    standardised: Scores = (scores - scores.mean(1, keepdims=True)) / np.where(spread > 0, spread, 1)
    return standardised
