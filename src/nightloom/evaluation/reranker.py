"""Calibration of the re-ranker on the candidates of the test users."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.special import expit

from nightloom.core.click_metrics import measure
from nightloom.core.sequences import Queries
from nightloom.evaluation import plots
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.training.reranking import candidate_rows


def measure_probabilities(recommender: SequentialRecommender, queries: Queries, path: Path, title: str) -> dict[str, float]:
    """Score the candidates of each query with the re-ranker, and draw its calibration.

    Args:
        recommender: a model with a re-ranker.
        queries: histories and the items held out after them.
        path: PNG file to write.
        title: above the figure.

    Returns:
        AUC, log-loss, normalised entropy and expected calibration error over the candidates, `rows`, and `positive`: the share of
        rows that were held-out items.
    """
    if recommender.reranker is None:
        raise ValueError("the model has no re-ranker")
    described, _, held = candidate_rows(
        recommender, queries, recommender.reranker.item_counters, exclude_seen=recommender.reranker.exclude_seen
    )
    probability = expit(recommender.reranker.log_odds(described).astype(np.float64)).ravel()
    happened = held.ravel()
    plots.calibration(path, {recommender.family: (happened, probability)}, {recommender.family: plots.MODEL}, title)
    return measure(happened, probability) | {"rows": len(probability), "positive": float(happened.mean())}
