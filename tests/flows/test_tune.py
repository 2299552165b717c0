"""A tuning of a user's own CSV files, from the command line to the preset, killed on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import psutil
import pytest

from nightloom.config import load_config
from nightloom.runs.tracking import Tracking
from nightloom.training.search_space import space_of, value_of
from tests.tiny_models import WORDS, tiny_bert

REPOSITORY = Path(__file__).parents[2]
CONFIG = """
name: mine
data: {{events: events.csv, items: items.csv}}
pretrained: {{model: {model}}}
model: {{dim: 16, blocks: 1, heads: 2}}
training: {{epochs: 12, patience: 12, workers: 1}}
"""
COMMAND = [sys.executable, "-m", "flows.tune", "--config", "mine.yaml", "--minutes", "20", "--trials", "2", "--write-preset", "best.yaml"]
COMMAND += ["--study", "Shop1"]  # which is no key that Prefect takes


@pytest.fixture
def home(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = [
        (f"u{user:02d}", f"{(start + step) % 30:03d}", 1_600_000_000 + int(late) + step * 200_000)
        for user, (start, late) in enumerate(zip(rng.integers(0, 30, 60), rng.integers(0, 10**7, 60), strict=True))
        for step in range(12)
    ]
    pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]).to_csv(tmp_path / "events.csv", index=False)
    titles = [f"{WORDS[item % len(WORDS)]} {WORDS[3 * item % len(WORDS)]}" for item in range(30)]
    pd.DataFrame({"item_id": [f"{item:03d}" for item in range(30)], "title": titles}).to_csv(tmp_path / "items.csv", index=False)
    (tmp_path / "mine.yaml").write_text(CONFIG.format(model=tiny_bert(tmp_path / "bert")))
    return tmp_path


def test_a_tuning_that_was_stopped_goes_on_and_writes_a_preset(home: Path) -> None:
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "src")])
    env = os.environ | {"PYTHONPATH": path, "PREFECT_HOME": str(home / "mlruns" / "prefect"), "HF_HUB_OFFLINE": "1"}
    study, end = home / "mlruns" / "tuning" / "Shop1", time.monotonic() + 200
    process = subprocess.Popen(COMMAND, cwd=home, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(study.glob("trials/*/seed-0/curves.jsonl")) and time.monotonic() < end:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    assert not [one for one in psutil.process_iter(["cmdline"]) if any(str(study) in part for part in one.info["cmdline"] or [])]

    again = subprocess.run(COMMAND, cwd=home, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0, again.stdout + again.stderr
    trials = optuna.load_study(study_name="Shop1", storage=f"sqlite:///{study}/study.db").trials
    assert [trial.state.name for trial in trials] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert trials[0].params == trials[1].params  # the one that was under way

    given, best = load_config(home / "mine.yaml"), load_config(home / "best.yaml")
    wanted = max(trials[1:], key=lambda trial: trial.value)
    assert {part.key: value_of(best, part.key) for part in space_of(given)} == wanted.params
    assert best.data == given.data
    assert f"{wanted.value:.4f}" in again.stdout

    tracking = Tracking(home / "mlruns")
    runs = tracking.client.search_runs([tracking.experiment("mine")])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    nested = {run.info.run_name: run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id}
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["streaming/validation_ndcg_at_10"] == pytest.approx(wanted.value)
    assert set(nested) == {"trial 1", "trial 2"}
    assert nested["trial 2"].data.params.keys() == wanted.params.keys()
    curve = tracking.client.get_metric_history(nested["trial 1"].info.run_id, "streaming/epoch/validation_ndcg_at_10")
    assert [point.step for point in curve] == list(range(1, 13))
    assert [entry.path for entry in tracking.client.list_artifacts(parent.info.run_id)] == ["best.yaml"]

    assert not (home / "mlruns" / "nights").exists()  # a tuning is no night
    assert json.loads((study / "manifests" / "prepare.json").read_text())["status"] == "reused"
