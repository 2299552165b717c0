"""Choosing the popularity penalty on validation: the most that costs no more NDCG@10 than is allowed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nightloom.core.ranking import blocks, held_out_mask, ndcg_of_scores
from nightloom.core.recommender import mask_seen
from nightloom.core.sequences import Queries
from nightloom.models.scorers.popularity_penalty import PopularityPenalty
from nightloom.models.scorers.score_fusion import Scores
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.training.fusion_weights import standard_error

STRENGTHS = tuple(round(0.05 * step, 2) for step in range(21))
"""Penalties that are tried, from none on. At 1 a list by popularity alone is turned around."""
MOST_QUERIES = 4_000


@dataclass(frozen=True)
class PenaltyChoice:
    """What was chosen.

    Attributes:
        strength: the constant of the fusion, lambda.
        loss: share of validation NDCG@10 that it costs; None where it was given, or nothing could be measured.
        error: standard error of the loss.
        queries: how many it was judged by.
    """

    strength: float = 0.0
    loss: float | None = None
    error: float | None = None
    queries: int = 0


def choose_penalty(
    recommender: SequentialRecommender,
    queries: Queries,
    counts: NDArray[np.integer],
    asked: float | Literal["auto"],
    limit: float,
    *,
    exclude_seen: bool,
    seed: int,
) -> PenaltyChoice:
    """The strength that was asked for, or the greatest up to which every loss and its standard error are together within the limit.

    Args:
        recommender: whole but for the penalty, fitted without the validation part.
        queries: validation queries.
        counts: int [items], positive events before validation.
        asked: `model.popularity_penalty`.
        limit: share of NDCG@10 that may be lost, as a mean over queries.
        exclude_seen: whether a history's items are left out of the ranking.
        seed: of the sample of queries.
    """
    if asked != "auto":
        return PenaltyChoice(float(asked))
    if len(queries) > MOST_QUERIES:
        queries = queries.take(np.sort(np.random.default_rng(seed).choice(len(queries), MOST_QUERIES, replace=False)))
    gains, many = np.zeros((len(STRENGTHS), len(queries))), np.diff(queries.target_offsets)
    for at, rows, scores, held in penalised(recommender, queries, counts, STRENGTHS, exclude_seen=exclude_seen):
        gains[at, rows] = ndcg_of_scores(scores, held, many[rows])
    if not gains[0].any():
        return PenaltyChoice(0.0, None, None, len(queries))
    lost = (gains[0] - gains) / gains[0].mean()
    losses, errors = lost.mean(1), np.array([standard_error(one, queries.users) for one in lost])
    allowed = int(np.argmax(np.append(losses + errors > limit, True))) - 1  # where not even none is left, none
    at = max(allowed, 0)
    return PenaltyChoice(STRENGTHS[at], float(losses[at]), float(errors[at]), len(queries))


def penalised(
    recommender: SequentialRecommender,
    queries: Queries,
    counts: NDArray[np.integer],
    strengths: Sequence[float],
    *,
    exclude_seen: bool,
) -> Iterator[tuple[int, slice, Scores, NDArray[np.bool_]]]:
    """Final scores with each strength of the penalty in place of the model's own, a block of queries at a time.

    Yields:
        Which strength, which queries, their scores, float32 [n, items], seen items at -inf where they are left out, and what is held out.
    """
    plain = copy(recommender)
    plain.penalty = None
    penalties = [PopularityPenalty.of(counts, strength, recommender.fused_unit) for strength in strengths]
    first = 0
    for part in blocks(queries, recommender.n_items):
        histories, rows = part.histories.packed(), slice(first, first + len(part))
        scores, held = plain.scores(histories), held_out_mask(part, recommender.n_items)
        if exclude_seen:
            mask_seen(scores, histories)
        for at, penalty in enumerate(penalties):
            yield at, rows, penalty.taken_off(scores), held
        first = rows.stop
