"""The quality benchmark on a made-up shop: runs are asked about the test, and what is there is not done again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.quality import main
from benchmarks.training.made_up import made_up_shop


def test_seeds_are_averaged_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTLOOM_ROOT", str(tmp_path / "runs"))
    config, page = made_up_shop(tmp_path), tmp_path / "quality.md"
    small = ["model.dim=16", "model.blocks=1", "training.epochs=3", "training.patience=3"]
    command = ["--config", str(config), "--seeds", "1", "2", "--variants", "no_time", "--table", str(page)]
    command += ["--plot", str(tmp_path / "curve.png")]
    command += [part for one in small for part in ("--set", one)]
    assert main(command) == 0
    assert (tmp_path / "curve.png").stat().st_size > 1000
    lines = page.read_text().splitlines()
    assert [line.split(" | ")[:2] for line in lines if "±" in line and line.startswith("|")] == [["| no_time", "2"]]
    kept = sorted((tmp_path / "runs").glob("bench/quality/made-up/leave_one_out/*/quality.json"))
    assert len(kept) == 2
    assert all(0 <= json.loads(one.read_text())["ndcg"] <= 1 for one in kept)
    written = [one.stat().st_mtime_ns for one in kept]
    assert main(command) == 0
    assert [one.stat().st_mtime_ns for one in kept] == written
