"""What a popularity penalty of each strength costs and gives on test queries: the curve that a person chooses a limit by."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightloom.core.metrics import parts_of_users
from nightloom.core.ranking import ndcg_of_scores
from nightloom.core.sequences import Queries
from nightloom.core.top_k import best_items
from nightloom.evaluation.lists import gini, of_the_tail
from nightloom.evaluation.statistics import paired
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.training.popularity_penalty import penalised

STRENGTHS = tuple(round(0.1 * step, 1) for step in range(11))
MOST_QUERIES, MOST_SCORES = 3_000, 600_000_000
"""Queries that are looked at, and their scores: of a catalogue of more than 200,000 items fewer are."""
K = 10
METRIC = "ndcg_at_10"


def measure_trade_off(
    recommender: SequentialRecommender,
    queries: Queries,
    popularity: NDArray[np.int64],
    *,
    exclude_seen: bool,
    confidence: float,
    resamples: int,
    seed: int,
    most: int = MOST_QUERIES,
    strengths: tuple[float, ...] = STRENGTHS,
) -> dict[str, Any]:
    """Lists of ten with each strength of the penalty, none first.

    Args:
        recommender: tonight's model, whatever penalty it has.
        queries: test queries.
        popularity: int64 [items], positive events in training.
        exclude_seen: whether items of a history are left out.
        confidence: of the intervals, by a paired bootstrap that draws users.
        resamples: of the bootstrap.
        seed: of the sample of queries.
        most: queries that are looked at.
        strengths: what is tried; the first is what the others are compared with.

    Returns:
        `queries`, `chosen` (strength of the model itself) and `rows`: each a `strength` with its `ndcg_at_10`, that `relative` to no
        penalty with `low` and `high`, `arp`, `aplt` (tail share), `tail_items` and `gini`. Empty without queries.
    """
    if not len(queries):
        return {}
    most = min(most, max(MOST_SCORES // max(recommender.n_items, 1), 1))
    if len(queries) > most:
        queries = queries.take(np.sort(np.random.default_rng(seed).choice(len(queries), most, replace=False)))
    gains, held_out = np.empty((len(strengths), len(queries))), np.diff(queries.target_offsets)
    tops = np.empty((len(strengths), len(queries), min(K, recommender.n_items)), dtype=np.int64)
    for at, part, scores, held in penalised(recommender, queries, popularity, strengths, exclude_seen=exclude_seen):
        gains[at, part] = ndcg_of_scores(scores, held, held_out[part])
        tops[at, part] = best_items(scores, K)[0]
    parts = [parts_of_users({METRIC: one}, queries.users)[0] for one in gains]
    many = np.unique(queries.users, return_counts=True)[1]
    rows = []
    for strength, gain, mine, top in zip(strengths, gains, parts, tops, strict=True):
        found = paired(mine, parts[0], queries=many, confidence=confidence, resamples=resamples)[METRIC]
        base = float(gains[0].mean()) or 1.0
        tail = of_the_tail(top, popularity)
        rows.append(
            {
                "strength": strength,
                METRIC: float(gain.mean()),
                "relative": found.difference / base,
                "low": found.low / base,
                "high": found.high / base,
                "gini": gini(top, len(popularity)),
                **{name: tail[name] for name in ("arp", "aplt", "tail_items")},
            }
        )
    return {"queries": len(queries), "chosen": 0.0 if recommender.penalty is None else recommender.penalty.strength, "rows": rows}
