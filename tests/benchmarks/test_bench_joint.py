"""The benchmark of the label head on a made-up shop whose events have a value: heads, baselines and what they do to the ranking."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.joint import main
from benchmarks.training.made_up import made_up_shop


def test_heads_and_baselines_are_asked_about_the_same_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTLOOM_ROOT", str(tmp_path / "runs"))
    config, page = made_up_shop(tmp_path), tmp_path / "joint.md"
    events = pd.read_csv(tmp_path / "events.csv")
    events["value"] = np.random.default_rng(0).integers(1, 6, len(events))
    events.to_csv(tmp_path / "events.csv", index=False)
    small = ["model.dim=16", "model.blocks=1", "training.epochs=2", "prepare.positive_min_value=3", "prepare.validation_share=0.2"]
    command = ["--config", str(config), "--seeds", "1", "--weights", "0", "0.5", "--table", str(page)]
    command += [part for one in small for part in ("--set", one)]
    assert main(command) == 0
    home = tmp_path / "runs" / "bench" / "joint" / "made-up-temporal"
    found = {path.parent.name.split("-1")[0]: json.loads(path.read_text()) for path in home.glob("*/result.json")}
    assert set(found) == {"0", "0.5", "frozen", "logistic", "lightgbm"}
    assert "test" not in found["0"]
    answers = [np.load(path)["positive"] for path in home.glob("*/probabilities.npz") if not path.parent.name.startswith("0-")]
    assert len(answers) == 4
    assert all(np.array_equal(one, answers[0]) for one in answers)
    assert all(0 <= found["0.5"][name] <= 1 for name in ("ndcg", "ndcg_network", "ndcg_then_head"))
    assert [line.split(" | ")[0] for line in page.read_text().splitlines() if line.startswith(("| l", "| f"))] == [
        "| label_weight 0",
        "| label_weight 0.5",
        "| frozen",
        "| logistic",
        "| lightgbm",
    ]
    written = [path.stat().st_mtime_ns for path in sorted(home.glob("*/result.json"))]
    assert main(command) == 0
    assert [path.stat().st_mtime_ns for path in sorted(home.glob("*/result.json"))] == written
