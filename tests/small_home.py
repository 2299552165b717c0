"""A small recommender of a user's own CSV files: two tables and a config whose night takes seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from tests.tiny_models import WORDS, tiny_bert

USERS, ITEMS, EVENTS = 40, 30, 10
CONFIG = """
name: mine
data:
  events: ratings.csv
  items: movies.csv
  columns:
    events: {{user_id: userId, item_id: movieId, timestamp: timestamp, value: rating}}
    items: {{item_id: movieId, title: title, genres: genres}}
pretrained: {{model: {model}}}
model: {{dim: 16, blocks: 1, heads: 2}}
training: {{epochs: 2, workers: {workers}, precision: fp32}}
evaluation: {{protocols: [streaming], baselines: [popularity]}}
explain: {{users: 1, max_events: 3, samples: 16}}
promotion: {{must_beat_baselines: false, resamples: 100, margin: 0.9}}
"""


def write_home(folder: Path, workers: int = 1, model: str | None = None) -> Path:
    """Tables of people who walk through a small catalogue, and a config. Without a model's folder one is made."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    step = np.tile(np.arange(EVENTS), USERS)
    walk = (np.repeat(random.integers(0, ITEMS, USERS), EVENTS) + step * np.repeat(random.integers(1, 4, USERS), EVENTS)) % ITEMS
    events = {
        "userId": [f"u{user:02d}" for user in np.repeat(np.arange(USERS), EVENTS)],
        "movieId": [f"{item:03d}" for item in walk],
        "timestamp": 1_600_000_000 + np.repeat(random.integers(0, 5_000_000, USERS), EVENTS) + step * 86_400,
        "rating": random.integers(3, 6, USERS * EVENTS),
    }
    pd.DataFrame(events).to_csv(folder / "ratings.csv", index=False)
    titles = [f"{WORDS[item % len(WORDS)]} {WORDS[(3 * item) % len(WORDS)]}" for item in range(ITEMS)]
    genres = ["drama|war" if item % 2 else "comedy" for item in range(ITEMS)]
    ids = [f"{item:03d}" for item in range(ITEMS)]
    pd.DataFrame({"movieId": ids, "title": titles, "genres": genres}).to_csv(folder / "movies.csv", index=False)
    (folder / "mine.yaml").write_text(CONFIG.format(model=model or tiny_bert(folder / "bert"), workers=workers))
    return folder
