"""How true the purchase head's chances are, on candidates of the test: asked of everybody, had by a few."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.special import expit

from nightloom.core.click_metrics import measure
from nightloom.core.sequences import Queries
from nightloom.evaluation import plots
from nightloom.models.sequential.recommender import Loom
from nightloom.training.reranking import candidate_rows


def measure_chances(loom: Loom, queries: Queries, path: Path, title: str) -> dict[str, float]:
    """Ask the purchase head about the candidates of each query, and draw its calibration.

    Args:
        loom: a model with a purchase head.
        queries: who is asked, and what they then had.
        path: PNG file to write.
        title: above the figure.

    Returns:
        AUC, log-loss, normalised entropy and expected calibration error over the candidates, `rows` and the share that was `had`.
    """
    assert loom.purchase is not None, "the model has no purchase head"
    described, _, held = candidate_rows(loom, queries, loom.purchase.tallies, exclude_seen=loom.purchase.exclude_seen)
    chance = expit(loom.purchase.log_odds(described).astype(np.float64)).ravel()
    happened = held.ravel()
    plots.calibration(path, {loom.family: (happened, chance)}, {loom.family: plots.MODEL}, title)
    return measure(happened, chance) | {"rows": len(chance), "had": float(happened.mean())}
