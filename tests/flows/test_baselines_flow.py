"""Families side by side on a user's own CSV files, from the command line: simple, neural and a variant of the full model."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nightloom.config import config_from_dict
from nightloom.experiments.baselines import varied
from tests.tiny_models import WORDS, tiny_bert

REPOSITORY = Path(__file__).parents[2]
FAMILIES = ["popularity_recent", "ease", "gru", "id_only"]
CONFIG = """
name: mine
data: {{events: ratings.csv, items: movies.csv}}
pretrained: {{model: {model}}}
model: {{dim: 16, blocks: 1, heads: 2}}
training: {{epochs: 1, workers: 1, refit: false}}
evaluation: {{protocols: [leave_one_out]}}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users who walk through a small catalogue."""
    folder = tmp_path_factory.mktemp("baselines")
    random, users, items, steps = np.random.default_rng(0), 30, 20, 8
    user, step = np.repeat(np.arange(users), steps), np.tile(np.arange(steps), users)
    item = (np.repeat(random.integers(0, items, users), steps) + step) % items
    events = {"user_id": [f"u{one}" for one in user], "item_id": [f"i{one}" for one in item], "timestamp": 1_600_000_000 + step * 90_000}
    pd.DataFrame(events).to_csv(folder / "ratings.csv", index=False)
    titles = [f"{WORDS[one]} {WORDS[one + 1]}" for one in range(items)]
    pd.DataFrame({"item_id": [f"i{one}" for one in range(items)], "title": titles}).to_csv(folder / "movies.csv", index=False)
    (folder / "mine.yaml").write_text(CONFIG.format(model=tiny_bert(folder / "bert")))
    return folder


def compare(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "src")]),
        "PREFECT_HOME": str(home / "mlruns" / "prefect"),
        "NIGHTLOOM_ROOT": str(home / "mlruns"),
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-m", "flows.baselines", "--config", "mine.yaml", *arguments]
    return subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, timeout=300, check=False)


def test_families_are_ranked_side_by_side(home: Path) -> None:
    done = compare(home, "--models", ",".join(FAMILIES), "--table", "table.md")
    assert done.returncode == 0, done.stdout + done.stderr
    table = (home / "table.md").read_text()
    listed = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")][1:]
    assert sorted(listed) == sorted(FAMILIES)
    assert "Command: `python -m flows.baselines --config mine.yaml" in table
    assert all(name in done.stdout for name in FAMILIES)
    (folder,) = (home / "mlruns" / "nights" / "mine").glob("*-baselines")
    assert (folder / "baselines.md").read_text() == table
    results = {one["family"]: one for one in json.loads((folder / "baselines.json").read_text())}
    assert all(one["asked"] == {"leave_one_out": "30 held-out users"} for one in results.values())
    assert results["id_only"]["fit_cpu_seconds"]["leave_one_out"] > 0
    assert len(results["gru"]["curves"]["leave_one_out"]) > 0
    (rows,) = (home / "mlruns" / "stages" / "mine" / "family_ease").glob("*/per_user.parquet")
    rank = pd.read_parquet(rows)["rank"].astype("float64")
    assert results["ease"]["metrics"]["leave_one_out"]["hr_at_10"] == pytest.approx((rank <= 10).mean())
    with closing(sqlite3.connect(home / "mlruns" / "mlflow.db")) as database:
        names = {name for (name,) in database.execute("select name from runs")}
        parents = database.execute("select count(distinct value) from tags where key = 'mlflow.parentRunId'").fetchone()
    assert set(FAMILIES) <= names
    assert parents == (1,)


def test_variants_differ_in_what_the_model_reads() -> None:
    config = config_from_dict({"name": "mine", "data": {"events": "e.csv"}})
    assert varied(config, "ease") == varied(config, "nightloom") == config
    text, ids = varied(config, "text_only").model, varied(config, "id_only").model
    assert (text.use_text, text.use_ids, text.use_attributes, text.scorers) == (True, False, False, ())
    assert (ids.use_text, ids.use_ids, ids.use_attributes, ids.scorers) == (False, True, False, ())
