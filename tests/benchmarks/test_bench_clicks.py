"""The click benchmark on a made-up log: over seeds, and what is there is not done again."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.clicks import main
from tests.made_clicks import write


def test_the_benchmark_goes_over_seeds_and_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTLOOM_ROOT", str(tmp_path / "mlruns"))
    config = str(write(tmp_path, rows=900))
    arguments = ["--config", config, "--seeds", "1", "2", "--families", "head", "logistic", "--table", str(tmp_path / "table.md")]
    assert main(arguments) == 0
    table = (tmp_path / "table.md").read_text()
    assert "| head | 0." in table
    assert " ± " in table
    assert "benchmarks.clicks --config" in table
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "mlruns" / "bench" / "clicks").rglob("result.json")}
    assert len(kept) == 4
    assert main(arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert main(["--config", config, "--set", "clicks.folds=0"]) == 2
