"""Small histograms that a night keeps, by which the watch over nights sees the catalogue's texts and the lists' scores drift.

Texts are seen by the vectors of the pretrained language model as it is, before any tuning. The item vectors that a night trains would not
do: the next training turns the whole space, though nothing has changed. Their distribution is kept as that of its projections on fixed
directions, by all of which it is determined (Cramér and Wold 1936).

Scores are seen as the probability of a list's first item: the softmax of the whole catalogue's scores. So it matters neither how a night's
scores are shifted, nor how many items there are, beyond what that says about how sure the model is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nightloom.core.ranking import blocks
from nightloom.core.recommender import Recommender, mask_seen
from nightloom.core.sequences import Queries

DIRECTIONS = 16
PLACES = np.arange(-80, 81) * 0.05
"""Edges of projections, in units of what a direction has in the mean: a vector of length 1 has squares that sum to 1."""
POWERS = np.arange(-300, 1) * 0.02
"""Edges of probabilities, as powers of ten."""
QUERIES = 1_000
MOST_SCORES = 200_000_000
"""Scores that are made: where the catalogue has more than 200,000 items, fewer queries are asked."""
ROWS = 16_384
"""Vectors that are held at once; a large file of them is mapped."""

Histograms = list[list[int]]
"""Counts by bin; the first and the last bin hold what lies beyond the edges."""


def of_texts(vectors: NDArray[np.floating], has_text: NDArray[np.bool_]) -> Histograms | None:
    """How the catalogue's texts lie, a histogram for each direction; None without texts.

    Args:
        vectors: float [items, dim], of the frozen language model.
        has_text: bool [items]; rows of the others have no meaning.
    """
    if not vectors.shape[1] or not has_text.any():
        return None
    directions = np.random.default_rng(0).standard_normal((vectors.shape[1], DIRECTIONS))
    directions *= np.sqrt(vectors.shape[1]) / np.linalg.norm(directions, axis=0)
    counts = np.zeros((DIRECTIONS, len(PLACES) + 1), dtype=np.int64)
    for first in range(0, len(vectors), ROWS):
        part = vectors[first : first + ROWS][has_text[first : first + ROWS]].astype(np.float64)
        length = np.linalg.norm(part, axis=1)
        places = (part[length > 0] / length[length > 0, None]) @ directions
        counts += np.stack([_counts(PLACES, one) for one in places.T])
    found: Histograms = counts.tolist()
    return found if counts.any() else None


def of_scores(model: Recommender, queries: Queries, *, exclude_seen: bool, seed: int) -> Histograms | None:
    """How sure a model is of the first item of its lists, one histogram; None without queries.

    Args:
        model: whose lists they are.
        queries: of the evaluation; at most `QUERIES` of them are asked, drawn by the seed.
        exclude_seen: whether items of a history are left out of its list.
        seed: of the draw.
    """
    rows, most = np.arange(len(queries)), max(1, min(QUERIES, MOST_SCORES // max(model.n_items, 1)))
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
    powers = [np.zeros(0)]
    for part in blocks(queries.take(rows), model.n_items):
        histories = part.histories.packed()
        scores = model.scores(histories)
        if exclude_seen:
            mask_seen(scores, histories)
        scores = scores[np.isfinite(scores).any(1)]  # where all items are seen, nothing is recommended
        scores -= scores.max(1, keepdims=True)
        powers.append(-np.log10(np.exp(scores, out=scores).sum(1, dtype=np.float64)))
    found = np.concatenate(powers)
    return [_counts(POWERS, found).tolist()] if len(found) else None


def _counts(edges: NDArray[np.floating], values: NDArray[np.floating]) -> NDArray[np.int64]:
    """Values by bin, int64 [edges + 1]."""
    return np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1)
