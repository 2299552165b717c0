"""Nights over growing data that start from the champion, from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.tiny_models import WORDS, tiny_bert

REPOSITORY = Path(__file__).parents[2]
EPOCHS, WARM_EPOCHS, FIRST_ITEMS, ITEMS = 5, 2, 27, 30
CONFIG = """
name: mine
data: {{events: events.csv, items: items.csv}}
pretrained: {{model: {model}}}
model: {{dim: 16, blocks: 1, heads: 2}}
training: {{epochs: {epochs}, patience: {epochs}, warm_start: true, warm_epochs: {warm}, learning_rate: 0.003, workers: 1}}
explain: {{users: 1, max_events: 4, samples: 32}}
promotion: {{must_beat_baselines: false, resamples: 100}}
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "mine.yaml").write_text(CONFIG.format(model=tiny_bert(tmp_path / "bert"), epochs=EPOCHS, warm=WARM_EPOCHS))
    return tmp_path


def write_tables(home: Path, day: float, items: int) -> None:
    """What users who walk through the catalogue have done until a day, and the items that there are by then."""
    random, users, steps = np.random.default_rng(0), 60, 12
    user, step = np.repeat(np.arange(users), steps), np.tile(np.arange(steps), users)
    when = np.repeat(random.uniform(0, 28, users), steps) + step
    item = (np.repeat(random.integers(0, FIRST_ITEMS, users), steps) + step) % FIRST_ITEMS
    table = pd.DataFrame({"user_id": user, "item_id": item, "timestamp": 1_600_041_600 + (when * 86_400).astype(int)})
    table[when < day].to_csv(home / "events.csv", index=False)
    titles = [f"{WORDS[one % len(WORDS)]} {WORDS[3 * one % len(WORDS)]}" for one in range(items)]
    pd.DataFrame({"item_id": range(items), "title": titles}).to_csv(home / "items.csv", index=False)


def night(home: Path, *arguments: str) -> dict[str, Any]:
    """Figures of the night's training."""
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "src")]),
        "PREFECT_HOME": str(home / "mlruns" / "prefect"),
        "NIGHTLOOM_ROOT": str(home / "mlruns"),
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-m", "flows.nightly", "--config", "mine.yaml", *arguments]
    done = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    latest = home / "mlruns" / "nights" / "mine" / "latest"
    found: dict[str, Any] = json.loads((latest / "manifests" / "fine_tune.json").read_text())["figures"]["streaming"]
    return found


def test_the_second_night_starts_from_the_champion_and_a_forced_one_from_scratch(home: Path) -> None:
    write_tables(home, 30, FIRST_ITEMS)
    first = night(home)
    assert (first["warm_start"], first["epochs"]) == (None, EPOCHS)
    assert first["cold_because"] == "no model to start from"

    write_tables(home, 40, ITEMS)
    second = night(home)
    assert second["cold_because"] is None
    assert second["epochs"] <= WARM_EPOCHS
    bundles = (home / "mlruns" / "stages" / "mine" / "fine_tune").glob("*/streaming/bundle/meta.json")
    before, now = sorted(json.loads(path.read_text())["trained_until"]["streaming"] for path in bundles)
    assert second["warm_start"]["trained_until"] == before < now
    assert second["warm_start"]["items_new"] >= ITEMS - FIRST_ITEMS
    assert second["warm_start"]["items_kept"] > 20

    forced = night(home, "--force")
    assert (forced["warm_start"], forced["epochs"]) == (None, EPOCHS)
