"""What the re-ranker looks at: Shapley values of the features of the items that it puts first, in log-odds.

They are own estimates, shown by shap's plots. shap's Permutation explainer draws the same orders, and compiles for ten seconds each night.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightloom.core.sequences import Histories
from nightloom.explain.shap_library import shap_library
from nightloom.explain.shap_plots import SHOWN, beeswarms, saved, shown_name, table_to_shap
from nightloom.explain.shapley import shapley
from nightloom.models.heads.reranker import COUNTERS
from nightloom.models.sequential.recommender import SequentialRecommender

BACKGROUND = 10
"""Candidates that stand for a feature that is not known."""
ROWS = 60
"""Most recommendations that are explained."""
WALKS = 8
"""Orders of the features that are walked through, there and back."""


def explain_reranker(model: SequentialRecommender, histories: Histories, seed: int) -> Any | None:
    """Values of the features of each history's best item, in log-odds, as a `shap.Explanation`; None without a re-ranker.

    Args:
        model: whose re-ranker.
        histories: some queries; the first `ROWS` are explained.
        seed: of the background and the walks.
    """
    described, reranker = model.reranker_features(histories.take(slice(0, ROWS))), model.reranker
    if described is None or reranker is None or not len(described):
        return None
    best = described[np.arange(len(described)), reranker.log_odds(described).argmax(1)]
    flat = described.reshape(-1, described.shape[2])
    drawn = np.random.default_rng(seed).choice(len(flat), min(BACKGROUND, len(flat)), replace=False)
    background = flat[drawn]
    names = ["fused score", *(f"score of {name.replace('_', ' ')}" for name in reranker.members), *COUNTERS]
    rows = []
    for row in best:

        def worth(keep: NDArray[np.bool_], row: NDArray[np.float32] = row) -> NDArray[np.float64]:
            """Mean log-odds with the features of a coalition, the others as in the background."""
            mixed = np.where(keep[:, None], row, background)
            return np.asarray(reranker.log_odds(mixed.reshape(1, -1, len(row)))[0].reshape(mixed.shape[:2]).mean(1, dtype=np.float64))

        one = shapley(worth, len(names), 2 + WALKS * 2 * (len(names) - 1), seed)
        rows.append((one.none, dict(zip(names, one.values.tolist(), strict=True))))
    said = table_to_shap(rows, names, best)
    said.feature_names = [shown_name(name, f"feature {place}") for place, name in enumerate(names, start=1)]
    return said


def draw_reranker(found: Any, folder: Path, segments: Mapping[str, NDArray[np.bool_]]) -> None:
    """`shap_reranker.png`: a dot a recommendation, coloured by the feature; `shap_reranker_segments.png`, the same side by side.

    Args:
        found: values of all features.
        folder: where to.
        segments: name -> bool [recommendations]; empty: no second plot.
    """
    shap = shap_library()

    saved(folder / "shap_reranker.png", lambda: shap.plots.beeswarm(found, max_display=SHOWN, show=False))
    beeswarms(folder / "shap_reranker_segments.png", {name: found[mask] for name, mask in segments.items()})
