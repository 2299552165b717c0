"""A made-up shop for the quick run: what follows what can be learned, and it is there in milliseconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

USERS, ITEMS = 80, 40


def made_up_shop(folder: Path) -> Path:
    """Write `events.csv` and its config into a folder; returns the config's path."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(3)
    rows = []
    for user in range(USERS):
        start, length = int(random.integers(ITEMS)), int(random.integers(5, 16))
        times = 1_700_000_000 + np.cumsum(random.integers(60, 86_400, length))
        rows += [(f"u{user}", f"i{(start + step) % ITEMS}", int(time)) for step, time in enumerate(times)]
    pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]).to_csv(folder / "events.csv", index=False)
    config = folder / "made-up.yaml"
    config.write_text("name: made-up\ndata: {events: events.csv}\ntraining: {batch_users: 16, learning_rate: 0.01}\n", encoding="utf-8")
    return config
