"""Runs in a real MLflow database."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nightloom.core.errors import NightloomError
from nightloom.runs.processes import this_process
from nightloom.runs.provenance import git_state, run_tags
from nightloom.runs.run_content import GATE_TAG, NOTE_TAG, OUTCOME_TAG, flatten
from nightloom.runs.stages import Night
from nightloom.runs.tracking import FAMILY_TAG, PROCESS_TAG, Tracking
from tests.small_bundle import small_config

METRICS = {"temporal": {"ndcg_at_10": 0.25, "hr_at_10": 0.5}, "leave_one_out": {"ndcg_at_10": float("nan")}}
CURVES = {
    "temporal": [
        {"epoch": 1, "loss": 3.0, "validation_ndcg_at_10": 0.1, "learning_rate": 1e-3, "seconds": 2.0},
        {"epoch": 2, "loss": 2.0, "validation_ndcg_at_10": 0.2, "learning_rate": 1e-3, "seconds": 2.0},
    ]
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tracking") / "mlruns"


@pytest.fixture(scope="module")
def tracking(root: Path) -> Tracking:
    return Tracking(root)


def night(root: Path, name: str) -> Night:
    return Night(small_config(name), "20260102-020000", root)


def test_a_night_is_a_parent_run_with_a_nested_run_a_family(tracking: Tracking, root: Path, tmp_path: Path) -> None:
    tonight = night(root, "story")
    tags = run_tags(tonight, "d" * 64)
    plot, table = tmp_path / "curve.png", tmp_path / "slices.json"
    plot.write_bytes(b"png")
    table.write_text("{}")
    with tracking.night(tonight, tags) as run:
        tracking.log_dataset(run, "story", "d" * 64, "/snapshots/story/dd", {"events": 7, "items": 3})
        model = tracking.log_family(run, "nightloom", METRICS, tags=tags, params={"model": {"dim": 8}}, curves=CURVES, files=[plot, table])
        baseline = tracking.log_family(run, "popularity", METRICS, tags=tags)
        tracking.log_metrics(run, METRICS)
        assert tracking.client.get_run(run).info.status == "RUNNING"

    parent, nested, simple = (tracking.client.get_run(one) for one in (run, model, baseline))
    assert [one.info.status for one in (parent, nested, simple)] == ["FINISHED"] * 3
    assert parent.data.params["training.learning_rate"] == str(tonight.config.training.learning_rate)
    assert parent.data.tags["nightloom.night"] == "20260102-020000"
    assert {"nightloom.data_hash", "nightloom.config_hash", "nightloom.git", "nightloom.code"} <= set(parent.data.tags)
    assert nested.data.params == {"family": "nightloom", "model.dim": "8"}
    assert simple.data.params == {"family": "popularity"}
    assert nested.data.tags["mlflow.parentRunId"] == run
    assert simple.data.tags[FAMILY_TAG] == "popularity"

    measured = {"temporal/ndcg_at_10": 0.25, "temporal/hr_at_10": 0.5}  # NaN is left out, MLflow refuses it
    assert parent.data.metrics == simple.data.metrics == measured
    assert nested.data.metrics.items() > measured.items()
    history = tracking.client.get_metric_history(model, "temporal/epoch/loss")
    assert [(point.step, point.value) for point in history] == [(1, 3.0), (2, 2.0)]
    assert sorted(entry.path for entry in tracking.client.list_artifacts(model)) == ["plots", "slices.json"]

    for one in (parent, nested, simple):
        (seen,) = one.inputs.dataset_inputs
        assert (seen.dataset.name, seen.dataset.digest, seen.tags[0].value) == ("story", "d" * 36, "training")
        assert "/snapshots/story/dd" in seen.dataset.source


def test_curves_of_a_model_that_trains_can_be_followed(tracking: Tracking, root: Path) -> None:
    with tracking.night(night(root, "live"), {}) as run:
        model = tracking.open_family(run, "nightloom", {"tag": "yes"})
        tracking.log_epoch(model, "temporal", CURVES["temporal"][0] | {"phase": "search", "label_loss": None})
        seen = tracking.client.get_run(model)
        assert seen.info.status == "RUNNING"
        assert (seen.data.metrics["temporal/epoch/loss"], seen.data.metrics["temporal/epoch/validation_ndcg_at_10"]) == (3.0, 0.1)
        assert tracking.open_family(run, "nightloom", {}) == model
        assert tracking.log_family(run, "nightloom", METRICS, tags={"tag": "yes"}, curves=CURVES) == model
    history = tracking.client.get_metric_history(model, "temporal/epoch/loss")
    assert [(point.step, point.value) for point in history] == [(1, 3.0), (2, 2.0)]
    assert tracking.client.get_run(model).info.status == "FINISHED"


def test_a_night_that_fails_in_training_closes_the_open_run(tracking: Tracking, root: Path) -> None:
    opened = []

    def fail() -> None:
        with tracking.night(night(root, "fails"), {}) as run:
            opened.append(tracking.open_family(run, "nightloom", {}))
            raise RuntimeError("no memory left")

    with pytest.raises(RuntimeError, match="no memory left"):
        fail()
    assert tracking.client.get_run(opened[0]).info.status == "FAILED"


def test_what_became_of_a_night(tracking: Tracking, root: Path) -> None:
    gate = {"metric": "ndcg_at_10", "difference": 0.01, "interval": (0.002, 0.018), "challenger": 0.3, "champion": 0.29}
    with tracking.night(night(root, "outcome"), {}) as run:
        tracking.log_outcome(run, "promoted", gate, "Promoted: version 2", ["It is\nsuperior.", "Item '<b>x</b>'."])
        table = tracking.runs_url(run)
    found = tracking.client.get_run(run).data
    assert found.tags[OUTCOME_TAG] == "promoted"
    assert found.tags[GATE_TAG] == "ndcg_at_10 +0.0100 (+0.0020 to +0.0180) against the champion"
    assert found.tags[NOTE_TAG] == "**Promoted: version 2**\n\n- It is superior.\n- Item '&lt;b>x&lt;/b>'."
    figures = {"gate/difference": 0.01, "gate/low": 0.002, "gate/high": 0.018, "gate/challenger": 0.3, "gate/champion": 0.29}
    assert found.metrics == figures
    assert table == f"#/experiments/{tracking.experiment('outcome')}/runs?workflowType=machine_learning"


def test_without_a_champion_the_best_baseline_is_what_counts(tracking: Tracking, root: Path) -> None:
    worse = {"name": "als", "other": 0.2, "difference": 0.1, "low": 0.05, "high": 0.15}
    best = {"name": "popularity", "other": 0.25, "difference": 0.05, "low": 0.01, "high": 0.09}
    gate = {"metric": "ndcg_at_10", "interval": None, "difference": None, "challenger": 0.3, "baselines": [worse, best]}
    with tracking.night(night(root, "first"), {}) as run:
        tracking.log_outcome(run, "promoted", gate, "Promoted: version 1", [])
    found = tracking.client.get_run(run).data
    assert found.tags[GATE_TAG] == "ndcg_at_10 +0.0500 (+0.0100 to +0.0900) against popularity"
    assert found.metrics == {"gate/difference": 0.05, "gate/low": 0.01, "gate/high": 0.09, "gate/challenger": 0.3}


def test_the_outcome_of_a_refused_night_needs_no_gate(tracking: Tracking, root: Path) -> None:
    with tracking.night(night(root, "refused"), {}) as run:
        tracking.log_outcome(run, "refused", {}, "Stopped at validate", ["events: no rows"])
    found = tracking.client.get_run(run).data
    assert (found.tags[OUTCOME_TAG], GATE_TAG in found.tags, found.metrics) == ("refused", False, {})


def test_files_are_found_from_any_run_of_a_night(tracking: Tracking, root: Path, tmp_path: Path) -> None:
    table = tmp_path / "per_user.parquet"
    table.write_bytes(b"rows")
    with tracking.night(night(root, "files"), {}) as run:
        model = tracking.log_family(run, "nightloom", METRICS, tags={}, files=[table])
        baseline = tracking.log_family(run, "popularity", METRICS, tags={})
    for number, one in enumerate((run, model, baseline)):
        found = tracking.download(one, "per_user.parquet", tmp_path / str(number))
        assert found is not None
        assert found.read_bytes() == b"rows"
    assert tracking.download(run, "other.parquet", tmp_path / "other") is None


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")])
def test_a_night_that_raises(tracking: Tracking, root: Path, error: type[BaseException], status: str) -> None:
    runs = []

    def fail() -> None:
        with tracking.night(night(root, "raises"), {}) as run:
            runs.append(run)
            raise error

    with pytest.raises(error):
        fail()
    assert tracking.client.get_run(runs[0]).info.status == status


@pytest.mark.parametrize("starts", [True, False], ids=["the next night", "a night with nothing to do"])
def test_runs_that_a_kill_left_are_closed_and_living_ones_are_not(tracking: Tracking, root: Path, starts: bool) -> None:
    experiment = tracking.experiment("left")
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True)
    host, _, began = this_process().split()
    processes = {
        "dead": f"{host} {child.stdout.strip()} {began}",
        "pid used again": f"{host} {os.getpid()} {float(began) - 1000}",
        "alive": f"{host} {os.getpid()} {began}",
        "another machine": f"far-away {child.stdout.strip()} {began}",
    }
    left = {name: tracking.client.create_run(experiment, tags={PROCESS_TAG: value}).info.run_id for name, value in processes.items()}
    if starts:
        with tracking.night(night(root, "left"), {}):
            pass
    else:
        tracking.close_left("left")
    status = {name: tracking.client.get_run(run).info.status for name, run in left.items()}
    assert status == {"dead": "KILLED", "pid used again": "KILLED", "alive": "RUNNING", "another machine": "RUNNING"}


def test_a_locked_database_is_named_with_a_remedy(tracking: Tracking, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nightloom.runs.mlflow_store.LOCK_SECONDS", 0.1)
    holder = sqlite3.connect(root / "mlflow.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        for attempt in (lambda: Tracking(root), lambda: tracking.log_metrics("any", METRICS)):
            with pytest.raises(NightloomError, match=r"mlflow\.db: the MLflow database is locked .*fuser .*NIGHTLOOM_MLFLOW_URI"):
                attempt()
    finally:
        holder.close()
    assert Tracking(root).experiment("after") == tracking.experiment("after")


def test_a_short_lock_is_waited_for(tracking: Tracking, root: Path) -> None:
    import threading

    holder = sqlite3.connect(root / "mlflow.db", isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(0.3, holder.close)
    release.start()
    with tracking.night(night(root, "waits"), {}) as run:
        pass
    release.join()
    assert tracking.client.get_run(run).info.status == "FINISHED"


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, but long enough to be read as one" * 50)
    with pytest.raises(NightloomError, match=r"mlflow\.db is no MLflow database"):
        Tracking(tmp_path)


def test_a_server_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTLOOM_MLFLOW_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("NIGHTLOOM_MLFLOW_WAIT", "0")
    with (
        pytest.raises(NightloomError, match=r"http://127\.0\.0\.1:9: the MLflow server does not answer"),
        Tracking(tmp_path).night(night(tmp_path, "far"), {}),
    ):
        pass
    assert not (tmp_path / "mlflow.db").exists()


def test_git_state(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments], cwd=tmp_path, check=True, capture_output=True)

    assert git_state(tmp_path) == "unknown"
    git("init")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-m", "one")
    sha = git_state(tmp_path)
    assert len(sha) == 40
    (tmp_path / "ratings.csv").write_text("a table of one's own")
    assert git_state(tmp_path) == sha
    (tmp_path / "rules.py").write_text("code")
    assert git_state(tmp_path) == f"{sha}+dirty"
    (tmp_path / "rules.py").unlink()
    (tmp_path / "file").write_text("two")
    assert git_state(tmp_path) == f"{sha}+dirty"


@pytest.mark.parametrize(
    ("nested", "flat"),
    [({}, {}), ({"a": {"b": 1, "c": {"d": None}}, "e": [1]}, {"a.b": 1, "a.c.d": None, "e": [1]}), ({"a": {}}, {"a": {}})],
)
def test_flatten(nested: dict[str, Any], flat: dict[str, Any]) -> None:
    assert flatten(nested) == flat


FIRST = """
import sys
from pathlib import Path
from nightloom.runs.environment import telemetry_off
telemetry_off()
from nightloom.runs.stages import Night
from nightloom.runs.tracking import Tracking
from tests.small_bundle import small_config
tracking = Tracking(Path(sys.argv[1]))
with tracking.night(Night(small_config(), "n", Path(sys.argv[1])), {}) as run:
    tracking.log_family(run, "popularity", {"temporal": {"ndcg_at_10": 0.5}}, tags={})
"""


def test_the_first_run_of_a_new_database_says_nothing(tmp_path: Path) -> None:
    here = Path(__file__).parents[3]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW")}
    done = subprocess.run(
        [sys.executable, "-c", FIRST, str(tmp_path / "mlruns")],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": f"{here}{os.pathsep}{here / 'src'}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout + done.stderr == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlruns"]
