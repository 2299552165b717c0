"""Chances of a click on a user's own CSV, from the command line: the flow, and the benchmark on the same log."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import clicks as benchmark
from nightloom.evaluation.clicks import auc
from tests.made_clicks import write

REPOSITORY = Path(__file__).parents[2]


def test_the_flow_fits_measures_and_keeps_all(tmp_path: Path) -> None:
    write(tmp_path)
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "src")]),
        "PREFECT_HOME": str(tmp_path / "mlruns" / "prefect"),
        "NIGHTLOOM_ROOT": str(tmp_path / "mlruns"),
    }
    command = [sys.executable, "-m", "flows.clicks", "--config", "ads.yaml"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(family in done.stdout for family in ("head", "lightgbm", "logistic"))
    (folder,) = (tmp_path / "mlruns" / "nights" / "made-ads").glob("*-clicks")
    assert "less lightgbm (95%, paired): AUC" in (folder / "clicks.md").read_text()
    assert (folder / "calibration.png").stat().st_size > 5000
    results = {one["family"]: one for one in json.loads((folder / "clicks.json").read_text())}
    (chances,) = (tmp_path / "mlruns" / "stages" / "made-ads" / "clicks_head").glob("*/chances.parquet")
    kept = pd.read_parquet(chances)
    assert len(kept) == results["head"]["rows"]["test"] == 300
    assert results["head"]["test"]["auc"] == pytest.approx(auc(kept["clicked"].to_numpy(), kept["chance"].to_numpy()))
    with closing(sqlite3.connect(tmp_path / "mlruns" / "mlflow.db")) as database:
        names = {name for (name,) in database.execute("select name from runs")}
        metrics = {name for (name,) in database.execute("select distinct key from metrics")}
    assert {"head", "lightgbm", "logistic"} <= names
    assert {"test/auc", "test/log_loss", "test/ne", "test/ece", "validation/auc"} <= metrics


def test_the_benchmark_goes_over_seeds_and_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTLOOM_ROOT", str(tmp_path / "mlruns"))
    config = str(write(tmp_path, rows=900))
    arguments = ["--config", config, "--seeds", "1", "2", "--families", "head", "logistic", "--table", str(tmp_path / "table.md")]
    assert benchmark.main(arguments) == 0
    table = (tmp_path / "table.md").read_text()
    assert "| head | 0." in table
    assert " ± " in table
    assert "benchmarks.clicks --config" in table
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "mlruns" / "bench" / "clicks").rglob("result.json")}
    assert len(kept) == 4
    assert benchmark.main(arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert benchmark.main(["--config", config, "--set", "clicks.folds=0"]) == 2
