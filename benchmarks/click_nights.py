"""The latter half of a click log asked in parts, as nights would: each by a model that chose and learnt from what lies before it alone.

A publisher's test file can hold too few clicks to tell two models apart. Here the log's later rows are asked about too, in their
order: for each part, settings and calibration are chosen on folds before it, all before it is learnt from.
Its probabilities are kept; in
the end the parts are measured as one (a rolling origin, Tashman, International Journal of Forecasting 2000).
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nightloom.config import RunConfig
from nightloom.core.click_metrics import calibration_noise, intervals, measure
from nightloom.core.files import write_json
from nightloom.data.preparation.impressions import Impressions
from nightloom.experiments.click_baselines import fit_and_measure

FIRST_ASKED = 0.5
"""Share of all rows that only learns."""


def cut(rows: Impressions, nights: int) -> list[Impressions]:
    """The log as it was at the end of each night, the rows of that night its test part; rows of one time are never parted."""
    places = np.linspace(FIRST_ASKED, 1, nights + 1) * len(rows)
    borders = [int(np.searchsorted(rows.times, rows.times[min(round(place), len(rows) - 1)])) for place in places[:-1]]
    return [known_until(rows, start, stop) for start, stop in pairwise([*dict.fromkeys(borders), len(rows)])]


def known_until(rows: Impressions, start: int, stop: int) -> Impressions:
    """The rows before `stop`, those from `start` the test part."""
    kept = {name: getattr(rows, name)[:stop] for name in ("times", "clicked", "hashes", "numbers")}
    return replace(rows, test_start=start, **kept)


def fit_and_measure_nights(rows: Impressions, family: str, config: RunConfig, folder: Path, nights: int) -> dict[str, Any]:
    """As `fit_and_measure`, over all nights: `probabilities.parquet` and `result.json` are of their rows together.

    A night that is there already is not done again.
    """
    parts, results = [], []
    for number, known in enumerate(cut(rows, nights)):
        part = folder / f"night-{number}"
        if not (part / "result.json").exists():
            part.mkdir(parents=True, exist_ok=True)
            fit_and_measure(known, family, part, clicks=config.clicks, seed=config.training.seed, confidence=config.promotion.confidence)
        results.append(pd.read_json(part / "result.json", typ="series"))
        parts.append(pd.read_parquet(part / "probabilities.parquet"))
    asked = pd.concat(parts, ignore_index=True)
    clicked, probabilities = asked["clicked"].to_numpy(), asked["probability"].to_numpy()
    result = {
        "family": family,
        "seed": config.training.seed,
        "validation": {name: float(np.mean([one["validation"][name] for one in results])) for name in ("auc", "log_loss")},
        "test": measure(clicked, probabilities),
        "intervals": intervals(clicked, probabilities, confidence=config.promotion.confidence),
        "noise": calibration_noise(probabilities),
        "calibrator": "/".join(dict.fromkeys(one["calibrator"] for one in results)),
        "cpu_seconds": round(float(sum(one["cpu_seconds"] for one in results)), 2),
        "rows": {"learnt": int(asked["row"].min()), "test": len(asked), "clicks": int(clicked.sum())},
    }
    asked.to_parquet(folder / "probabilities.parquet", index=False)
    write_json(folder / "result.json", result)
    return result
