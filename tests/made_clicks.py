"""A small log of ads with known probabilities: what tests of the click head learn from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd


def log(rows: int = 1500, seed: int = 0) -> pd.DataFrame:
    """Ads that were shown; the true probability, which no model is given, is column `probability`."""
    random = np.random.default_rng(seed)
    user, ad, site = random.integers(0, 60, rows), random.integers(0, 12, rows), random.integers(0, 8, rows)
    depth = random.lognormal(2, 1, rows)
    score = -1.6 + random.normal(0, 0.7, 12)[ad] + random.normal(0, 0.7, 8)[site] + 0.6 * np.where(depth > 10, 1, -1)
    probability = 1 / (1 + np.exp(-score))
    frame = pd.DataFrame({"user_id": [f"u{one}" for one in user], "item_id": [f"ad{one}" for one in ad], "order": np.arange(rows)})
    frame["event"] = np.where(random.random(rows) < probability, "click", "impression")
    frame["site"] = [f"site{one}" for one in site]
    frame["depth"] = np.where(random.random(rows) < 0.2, np.nan, depth)
    return frame.assign(probability=probability)


def write(folder: Path, rows: int = 1500) -> Path:
    """The log as CSV with a config that reads it; gives the YAML's path."""
    columns = "{user_id: user_id, item_id: item_id, order: order, event: event, site: site, depth: depth}"
    log(rows).drop(columns="probability").to_csv(folder / "shown.csv", index=False)
    (folder / "ads.yaml").write_text(
        f"name: made-ads\ndata:\n  events: shown.csv\n  columns:\n    events: {columns}\n"
        "validation: {suite: ads, allowed_events: [click, impression]}\n"
        "prepare: {positive_events: [click], keep_repeats: true}\n"
        "clicks: {folds: 2, members: 2, epochs: 4}\n",
        encoding="utf-8",
    )
    return folder / "ads.yaml"
