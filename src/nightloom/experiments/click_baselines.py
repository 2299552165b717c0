"""The click head and its baselines on the same rows: each is fitted, predicts the test part once, and is measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nightloom.core.click_metrics import NAMES, calibration_noise, intervals, measure
from nightloom.core.files import write_json
from nightloom.data.preparation.impressions import Impressions
from nightloom.evaluation import plots
from nightloom.evaluation.plots import MODEL, OTHER
from nightloom.models.ctr.head import ClickHead
from nightloom.models.ctr.save import save
from nightloom.models.ctr.train import Fitted, fit

if TYPE_CHECKING:
    from nightloom.config import ClicksConfig

BASELINE = "lightgbm"
"""The baseline that the head is compared with, row by row."""
COLOURS = {"head": MODEL, "lightgbm": "#E69F00", "logistic": OTHER}


def fit_and_measure(
    rows: Impressions,
    family: str,
    folder: Path,
    progress: Callable[[str, float], None] = lambda _words, _share: None,
    explain: Callable[[Fitted, Impressions, Path, int], None] = lambda _fitted, _rows, _folder, _seed: None,
    *,
    clicks: ClicksConfig,
    seed: int,
    confidence: float,
) -> dict[str, Any]:
    """Fit one model, predict the test part, and write `probabilities.parquet`, `result.json` and, for the head, its files.

    Args:
        rows: what was shown.
        family: one of `nightloom.models.ctr.names.FAMILIES`.
        folder: where to write; it exists.
        progress: gets what is done, and which share of it.
        explain: gets the fitted model, the rows, the folder and the seed.
        clicks: how click models are fitted.
        seed: of the fit.
        confidence: of the intervals.

    Returns:
        The content of `result.json`: `family`, `seed`, `validation` and `test` (metric -> value), `intervals` of the test,
        `calibrator`, `step`, `losses` along the path, `cpu_seconds`, `rows`.

    Raises:
        InputError: the rows can not be cut into folds.
    """
    began = time.process_time()
    fitted: Fitted = fit(rows, family, clicks, seed, lambda words, share: progress(f"{family}: {words}", share))
    seconds = time.process_time() - began
    clicked = rows.clicked[rows.test_start :]
    result = {
        "family": family,
        "seed": seed,
        "validation": fitted.choice.metrics,
        "test": measure(clicked, fitted.probabilities),
        "intervals": intervals(clicked, fitted.probabilities, confidence=confidence),
        "noise": calibration_noise(fitted.probabilities),
        "calibrator": fitted.choice.calibrator.kind,
        "step": fitted.choice.step,
        "losses": fitted.choice.losses,
        "cpu_seconds": round(seconds, 2),
        "rows": {"learnt": rows.test_start, "test": len(clicked), "clicks": int(clicked.sum())},
    }
    pd.DataFrame({"row": np.arange(rows.test_start, len(rows)), "clicked": clicked, "probability": fitted.probabilities}).to_parquet(
        folder / "probabilities.parquet", index=False
    )
    if isinstance(fitted.model, ClickHead):
        save(folder, fitted.model, fitted.encoder, fitted.choice.calibrator)
    write_json(folder / "result.json", result)
    explain(fitted, rows, folder, seed)
    return result


def differences(folders: Mapping[str, Path], confidence: float) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Each model less LightGBM on the same test rows: metric -> (difference, low, high), paired bootstrap.

    Args:
        folders: model -> folder of `fit_and_measure`; without LightGBM nothing is compared.
        confidence: of the intervals.
    """
    if BASELINE not in folders:
        return {}
    baseline = pd.read_parquet(folders[BASELINE] / "probabilities.parquet")
    clicked, against = baseline["clicked"].to_numpy(), baseline["probability"].to_numpy()
    found = {}
    for family, folder in folders.items():
        if family != BASELINE:
            probability = pd.read_parquet(folder / "probabilities.parquet")["probability"].to_numpy()
            one, other = measure(clicked, probability), measure(clicked, against)
            spans = intervals(clicked, probability, against, confidence=confidence)
            found[family] = {name: (one[name] - other[name], *spans[name]) for name in NAMES}
    return found


def calibration_plot(path: Path, folders: Mapping[str, Path], title: str) -> None:
    """Predicted probability against the share clicked, in bins of equal mass, one line a model.

    Args:
        path: PNG file to write.
        folders: family -> folder of `fit_and_measure`.
        title: above the figure.
    """
    answers = {}
    for family, folder in folders.items():
        given = pd.read_parquet(folder / "probabilities.parquet")
        answers[family] = given["clicked"].to_numpy(), given["probability"].to_numpy()
    plots.calibration(path, answers, COLOURS, title)
