"""What LightGBM's click probabilities rest on: `shap.TreeExplainer` over test rows, exact for trees, drawn and summed up by column."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nightloom.core.files import write_json
from nightloom.core.fonts import with_fonts
from nightloom.data.preparation.impressions import Impressions
from nightloom.explain.shap_library import shap_library
from nightloom.explain.shap_plots import SHOWN, saved, shown_name
from nightloom.models.ctr.baselines import Boosted
from nightloom.models.ctr.train import Fitted

ROWS = 1_000
"""Test rows that are explained, drawn by the seed; trees with codes take some milliseconds a row."""
FILE = "trees.json"


@with_fonts()
def explain_trees(fitted: Fitted, rows: Impressions, folder: Path, seed: int) -> None:
    """Explain some rows, and write `trees.json` and `plots/shap_trees_*.png`; nothing of another model.

    Values are in log-odds before calibration. The models' values are averaged, as their answers are.

    Args:
        fitted: the model.
        rows: what was shown; some of the test part are explained.
        folder: where to; it exists.
        seed: of the choice of rows.
    """
    model = fitted.model
    if not isinstance(model, Boosted):
        return
    import matplotlib as mpl

    mpl.use("agg")
    shap = shap_library()

    tested = np.arange(rows.test_start, len(rows))
    chosen = np.sort(np.random.default_rng(seed).permutation(tested)[:ROWS])
    table = model.table(fitted.encoder.encode(rows, rows.test_start).take(chosen))
    names = [*fitted.encoder.columns, *fitted.encoder.fields][: table.shape[1]]
    values, bases = [], []
    for one in model.models:
        explainer = shap.TreeExplainer(one)
        values.append(np.asarray(explainer.shap_values(table)))
        bases.append(float(np.ravel(explainer.expected_value)[0]))
    labels = [shown_name(name, f"column {place}") for place, name in enumerate(names, start=1)]
    found = shap.Explanation(np.mean(values, axis=0), np.full(len(table), np.mean(bases)), data=table, feature_names=labels)
    sizes = np.abs(found.values).mean(0)
    order = np.argsort(-sizes, kind="stable")
    listed = [{"column": names[at], "mean_size": float(sizes[at])} for at in order.tolist()]
    write_json(folder / FILE, {"rows": len(table), "columns": listed})
    (folder / "plots").mkdir(exist_ok=True)
    saved(folder / "plots" / "shap_trees_beeswarm.png", lambda: shap.plots.beeswarm(found, max_display=SHOWN, show=False))
    saved(folder / "plots" / "shap_trees_bar.png", lambda: shap.plots.bar(found, max_display=SHOWN, show=False))
