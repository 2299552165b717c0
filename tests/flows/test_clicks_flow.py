"""Chances of a click on a user's own CSV, from the command line."""

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
