"""Probabilities of a click on a user's own CSV, from the command line."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from nightloom.core.click_metrics import auc
from nightloom.core.errors import InputError
from nightloom.packaging.pyfunc_clicks import ClickChances
from tests.made_clicks import log, write

REPOSITORY = Path(__file__).parents[2]


def test_the_flow_fits_measures_and_keeps_all(tmp_path: Path) -> None:
    write(tmp_path)
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "src")]),
        "PREFECT_HOME": str(tmp_path / "mlruns" / "prefect"),
        "NIGHTLOOM_ROOT": str(tmp_path / "mlruns"),
    }

    def clicks(*arguments: str) -> str:
        command = [sys.executable, "-m", "flows.clicks", "--config", "ads.yaml", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    said = clicks("--set", "promotion={margin: 0.2, resamples: 200}")
    assert "The head: promote. No champion stands." in said
    assert all(f"less that of {baseline} (" in said for baseline in ("lightgbm", "logistic", "the usual rate"))
    assert all(family in said for family in ("head", "lightgbm", "logistic"))
    (folder,) = (tmp_path / "mlruns" / "nights" / "made-ads").glob("*-clicks")
    assert "minus lightgbm (95%, paired): AUC" in (folder / "clicks.md").read_text()
    assert (folder / "calibration.png").stat().st_size > 5000
    assert "## What LightGBM looks at" in (folder / "clicks.md").read_text()
    plots = {path.name for path in (tmp_path / "mlruns" / "artifacts").rglob("reasons/shap_trees_*.png")}
    assert plots == {"shap_trees_bar.png", "shap_trees_beeswarm.png"}
    results = {one["family"]: one for one in json.loads((folder / "clicks.json").read_text())}
    (probabilities,) = (tmp_path / "mlruns" / "stages" / "made-ads" / "clicks_head").glob("*/probabilities.parquet")
    kept = pd.read_parquet(probabilities)
    assert len(kept) == results["head"]["rows"]["test"] == 300
    assert results["head"]["test"]["auc"] == pytest.approx(auc(kept["clicked"].to_numpy(), kept["probability"].to_numpy()))
    with closing(sqlite3.connect(tmp_path / "mlruns" / "mlflow.db")) as database:
        registered = dict(database.execute("select alias, name from registered_model_aliases").fetchall())
        names = {name for (name,) in database.execute("select name from runs")}
        metrics = {name for (name,) in database.execute("select distinct key from metrics")}
    assert {"head", "lightgbm", "logistic"} <= names
    assert {"test/auc", "test/log_loss", "test/ne", "test/ece", "validation/auc"} <= metrics
    assert registered == dict.fromkeys(("anchor", "challenger", "champion"), "nightloom-made-ads-clicks")

    (place,) = (tmp_path / "mlruns" / "stages" / "made-ads" / "promote_clicks").glob("*/served")
    loaded = ClickChances()
    key_file = tmp_path / "mlruns" / "privacy.key"
    loaded.load_context(SimpleNamespace(artifacts={"clicks": str(place)}, model_config={"key_file": str(key_file)}))
    with pytest.raises(InputError, match="the log of clicks: made by the key"):
        ClickChances().load_context(SimpleNamespace(artifacts={"clicks": str(place)}, model_config={}))
    assert all(key_file.read_bytes() not in path.read_bytes() for path in place.iterdir())
    rows = log().tail(3).drop(columns=["order", "event", "probability"])
    answer = loaded.predict(None, rows)["probability"]
    assert ((answer > 0) & (answer < 1)).all()
    assert answer.nunique() == 3
    strange = pd.DataFrame({"user_id": ["nobody"], "site": ["elsewhere"]})
    assert len(loaded.predict(None, strange)) == 1
    with pytest.raises(InputError, match="none of them is known"):
        loaded.predict(None, pd.DataFrame({"colour": ["red"]}))

    again = clicks("--set", "promotion={margin: 0.2, resamples: 200}")
    assert "The head: keep. Version 1 serves already" in again
