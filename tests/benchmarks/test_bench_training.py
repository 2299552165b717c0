"""The training benchmark on a made-up shop: it runs, and what it says of quality and time can be trusted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.training import table
from benchmarks.training.__main__ import main
from benchmarks.training.arms import QUALITY_TARGET, REFERENCE
from benchmarks.training.environments import PeerMissing, python_of
from benchmarks.training.task import PROTOCOL, judge, latest_alone
from nightloom.core.sequences import Histories, Queries, Sequences


def test_the_quick_run_prints_tables_without_peers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NIGHTLOOM_ROOT", str(tmp_path / "runs"))
    monkeypatch.setenv("NIGHTLOOM_BENCH_ENVS", str(tmp_path / "none"))
    monkeypatch.setenv("COLUMNS", "200")
    page = tmp_path / "training.md"
    assert main(["--quick", "--arms", "nightloom", "rectools-softmax", "--table", str(page)]) == 0
    shown = capsys.readouterr().out
    assert "RecTools softmax is left out: rectools is not installed" in shown
    assert "An epoch on 1 core" in shown
    assert "Time to quality" in shown
    text = page.read_text()
    assert "| Nightloom | 1 |" in text
    assert "80 users, 40 items" in text
    # The peers' files: the test is not among them, and every user keeps its order.
    events = next((tmp_path / "runs").glob("bench/*/task/events"))
    train, validation = (pd.read_parquet(events / f"{part}.parquet") for part in ("train", "validation"))
    assert len(validation) == 80
    assert not (events / "test.parquet").exists()
    latest = train.groupby("user")["order"].max()
    assert (validation.set_index("user")["order"] == latest + 1).all()


def test_lists_are_judged_by_the_place_of_the_held_out_item() -> None:
    queries = Queries(np.array([0, 1, 2]), Histories.of_items([[5], [6], [7]]), np.array([0, 1, 2, 3]), np.array([1, 2, 3], dtype=np.int32))
    found = judge(queries, np.array([[1, 9, 8], [9, 8, 2], [9, 8, -1]], dtype=np.int32))
    assert found["hr_at_10"] == pytest.approx(2 / 3)
    assert found["ndcg_at_10"] == pytest.approx((1 + 1 / 2) / 3)
    with pytest.raises(ValueError, match="2 lists for 3 users"):
        judge(queries, np.zeros((2, 3), dtype=np.int32))


def test_the_latest_events_are_kept_and_what_is_asked_stays(tmp_path: Path) -> None:
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / "meta.json").write_text("{}")
    items = np.arange(10, dtype=np.int32)
    borders = np.array([0, 6, 10]), np.array([4, 8]), np.array([5, 9])
    whole = Sequences(borders[0], items, items.astype(np.int64), items.astype(np.int16), items > 0, *borders[1:], 10)
    whole.save(tmp_path / "prepared" / f"sequences_{PROTOCOL}.npz")
    folder = latest_alone(tmp_path / "prepared", 3, tmp_path / "latest")
    latest = Sequences.load(folder / f"sequences_{PROTOCOL}.npz")
    assert latest.train().items.tolist() == [1, 2, 3, 6, 7]
    for part in ("validation", "test"):
        np.testing.assert_array_equal(latest.queries(part).targets, whole.queries(part).targets)
    assert (folder / "meta.json").read_text() == "{}"
    assert len(Sequences.load(tmp_path / "prepared" / f"sequences_{PROTOCOL}.npz").items) == 10


def test_ratios_are_of_medians_and_time_to_quality_stops_at_the_first_epoch_that_is_good_enough() -> None:
    def arm(name: str, *cpu: float) -> dict:
        return {"arm": name, "tuned": True, "peak_mb": 10.0, "epochs": [{"cpu_seconds": one, "seconds": one} for one in cpu]}

    cells = table.epochs_table(1, [arm(REFERENCE.name, 2, 1, 9), arm("other", 20, 10, 90)])
    assert cells.rows[1][4] == "10.00x"

    def outcome(*ndcg: float, cpu: float) -> dict:
        epochs = [{"epoch": at + 1, "cpu_seconds": cpu, "seconds": cpu, "ndcg": value} for at, value in enumerate(ndcg)]
        return {"epochs": epochs, "peak_mb": 1.0, "ended": "patience", "test": {"hr_at_10": 0.5, "ndcg_at_10": 0.25}}

    shown = table.quality_table({REFERENCE: outcome(0.1, 0.25, 0.3, cpu=2), QUALITY_TARGET: outcome(0.05, 0.1, 0.2, 0.1, cpu=10)})
    assert shown.rows[0][3:5] == ["4 (2)", "0.13"]
    assert shown.rows[1][2:5] == ["30 (3)", "30 (3)", "1.00"]


def test_a_peer_that_is_not_installed_is_not_looked_for_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTLOOM_BENCH_ENVS", str(tmp_path))
    with pytest.raises(PeerMissing, match="replay is not installed"):
        python_of("replay", lambda _: None, install=False)
