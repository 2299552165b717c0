"""What the re-ranker looks at: shap's Permutation explainer over the features of the items that it puts first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightloom.core.sequences import Histories
from nightloom.explain.shap_plots import SHOWN, saved, shown_name
from nightloom.models.heads.reranker import COUNTERS
from nightloom.models.sequential.recommender import SequentialRecommender

BACKGROUND = 10
"""Candidates that stand for a feature that is not known."""
ROWS = 60
"""Most recommendations that are explained."""
WALKS = 2
"""Orders of the features that are walked through, there and back."""


def explain_reranker(model: SequentialRecommender, histories: Histories, seed: int) -> Any | None:
    """Values of the features of each history's best item, in log-odds, as a `shap.Explanation`; None without a re-ranker.

    Args:
        model: whose re-ranker.
        histories: some queries.
        seed: of the background and the walks.
    """
    found, reranker = model.reranker_features(histories.take(slice(0, ROWS))), model.reranker
    if found is None or reranker is None or not len(found):
        return None
    import shap

    random = np.random.default_rng(seed)
    best = np.arange(len(found)), reranker.log_odds(found).argmax(1)
    flat = found.reshape(-1, found.shape[2])
    background = flat[random.choice(len(flat), min(BACKGROUND, len(flat)), replace=False)]
    names = ["fused score", *(f"score of {name.replace('_', ' ')}" for name in reranker.members), *COUNTERS]

    def log_odds(rows: NDArray[np.float32]) -> NDArray[np.float64]:
        return reranker.log_odds(np.asarray(rows, dtype=np.float32)[None])[0].astype(np.float64)

    state = np.random.get_state()  # noqa: NPY002  # shap seeds numpy's global generator
    try:
        explainer = shap.explainers.Permutation(log_odds, shap.maskers.Independent(background, max_samples=BACKGROUND), seed=seed)
        said = explainer(found[best], max_evals=WALKS * (2 * len(names) + 1), silent=True)
    finally:
        np.random.set_state(state)  # noqa: NPY002
    said.feature_names = [shown_name(name, f"feature {place}") for place, name in enumerate(names, start=1)]
    return said


def draw_reranker(found: Any, folder: Path) -> None:
    """`shap_reranker.png`: a dot a recommendation, coloured by the feature."""
    import shap

    saved(folder / "shap_reranker.png", lambda: shap.plots.beeswarm(found, max_display=SHOWN, show=False))
