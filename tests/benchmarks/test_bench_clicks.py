"""The click benchmark on a made-up log: over seeds, and what is there is not done again."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.click_nights import cut
from benchmarks.clicks import config_of, main, parse
from nightloom.data.collect import collect
from nightloom.data.preparation.impressions import impressions
from nightloom.data.tables.snapshot import read_snapshot
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


def test_nights_ask_the_latter_half_and_know_nothing_of_what_comes_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "mlruns"
    monkeypatch.setenv("NIGHTLOOM_ROOT", str(root))
    path = write(tmp_path, rows=900)
    arguments = ["--config", str(path), "--seeds", "1", "--families", "logistic", "--nights", "3", "--table", str(tmp_path / "table.md")]
    assert main(arguments) == 0
    config = config_of(path, parse(arguments), 1)
    rows = impressions(read_snapshot(collect(config.name, config.data, root).path), config.prepare, config.clicks.test_from)
    nights = cut(rows, 3)
    (pooled,) = (root / "bench" / "clicks").glob("*/*/probabilities.parquet")
    asked = pd.read_parquet(pooled)
    assert asked["row"].tolist() == list(range(nights[0].test_start, len(rows)))
    assert abs(nights[0].test_start - len(rows) / 2) < len(rows) / 20
    np.testing.assert_array_equal(asked["clicked"], rows.clicked[nights[0].test_start :])
    for night, following in pairwise(nights):
        assert len(night) == following.test_start
        assert rows.times[len(night) - 1] < rows.times[len(night)]
    assert f"test part: {len(asked):,} rows" in (tmp_path / "table.md").read_text()
