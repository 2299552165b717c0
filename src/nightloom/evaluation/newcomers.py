"""What newcomers are shown, and what variety costs: lists without a history, with exploration off and on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightloom.core.exploration import HEAD, lift
from nightloom.core.metrics import parts_of_users
from nightloom.core.ranking import blocks, held_out_mask, ndcg_of_scores
from nightloom.core.sequences import Queries
from nightloom.core.top_k import best_items
from nightloom.evaluation.statistics import paired
from nightloom.models.sequential.recommender import SequentialRecommender

K = 10
METRIC = "ndcg_at_10"
MOST_SCORES = 2_000_000_000
"""Scores of all lists: of very many items some of the queries, at equal distances, are enough."""


def measure_newcomers(
    recommender: SequentialRecommender,
    queries: Queries,
    user_ids: NDArray[np.object_],
    temperature: float,
    *,
    confidence: float,
    resamples: int,
) -> dict[str, Any]:
    """Lists of ten for the queries without a history, as they are and as the service would draw them.

    Args:
        recommender: the model.
        queries: test queries; those with a history are left out.
        user_ids: object [n], whose each query is.
        temperature: `model.exploration`; 0: nothing is drawn.
        confidence: of the interval, by a paired bootstrap that draws users.
        resamples: of the bootstrap.

    Returns:
        `queries`, `users`, `temperature`, and `off` and `on`: `ndcg_at_10`, `items` (how many different ones are shown) and `shared` (how
        many of the first ten two people have in common, as a mean). `difference` is on less off, with `low` and `high`. Empty where
        nobody comes without a history.
    """
    rows = np.flatnonzero(queries.histories.lengths == 0)
    if not len(rows):
        return {}
    most = max(MOST_SCORES // recommender.n_items, 2)
    if len(rows) > most:
        rows = rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]
    asked, people = queries.take(rows), user_ids[rows]
    gains, tops = np.empty((2, len(asked))), np.empty((2, len(asked), min(K, recommender.n_items)), np.int64)
    many, first = np.diff(asked.target_offsets), 0
    scale = temperature * recommender.fused_unit
    for part in blocks(asked, recommender.n_items):
        scores, held = recommender.scores(part.histories.packed()), held_out_mask(part, recommender.n_items)
        inside = slice(first, first + len(part))
        drawn = scores.copy()
        if temperature:
            times = part.times[part.target_offsets[:-1]]
            for row, head in enumerate(best_items(scores, HEAD)[0]):
                drawn[row] += lift(head[head >= 0], people[first + row], int(times[row]), recommender.n_items, scale)
        for at, table in enumerate((scores, drawn)):
            gains[at, inside] = ndcg_of_scores(table, held, many[inside])
            tops[at, inside] = best_items(table, K)[0]
        first = inside.stop
    (off, counts), (on, _) = (parts_of_users({METRIC: one}, asked.users) for one in gains)
    found = paired(on, off, queries=counts, confidence=confidence, resamples=resamples)[METRIC]
    said = [
        {METRIC: float(gain.mean()), "items": len(np.unique(top[top >= 0])), "shared": _shared(top, recommender.n_items)}
        for gain, top in zip(gains, tops, strict=True)
    ]
    return {
        "queries": len(asked),
        "users": len(counts),
        "temperature": temperature,
        "off": said[0],
        "on": said[1],
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
    }


def _shared(top: NDArray[np.int64], n_items: int) -> float | None:
    """Items that the lists of two people have in common, a mean over all pairs; None for one list."""
    n = len(top)
    if n < 2:
        return None
    shown = np.bincount(top[top >= 0], minlength=n_items)
    return float((shown * (shown - 1)).sum() / (n * (n - 1)))
