"""A model is logged through MLflow's public call, with the metrics and the data set of its run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from nightloom.packaging.log_model import log_model
from nightloom.packaging.served import Served, recommender
from nightloom.packaging.serving_artefact import write_serving
from nightloom.runs.stages import Night
from nightloom.runs.tracking import Tracking
from tests.small_bundle import small_bundle, small_config

METRICS = {"temporal": {"ndcg_at_10": 0.25, "hr_at_10": 0.5}}
CURVES = {"temporal": [{"epoch": 1, "loss": 3.0}, {"epoch": 2, "loss": 2.0}]}


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    return Tracking(tmp_path_factory.mktemp("logged") / "mlruns")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    bundle = small_bundle(tmp_path_factory.mktemp("logged-bundle") / "bundle")
    write_serving(bundle, bundle.with_name("serving"))
    return recommender(bundle, bundle.with_name("serving"), [["i1"]], None, exclude_seen=True)


@pytest.fixture(scope="module")
def run(tracking: Tracking) -> str:
    """A family's run, with results on a data set and curves."""
    night = Night(small_config("logged"), "20260102-020000", Path(tracking.uri.removeprefix("sqlite:///")).parent)
    with tracking.night(night, {}) as parent:
        tracking.log_dataset(parent, "logged", "d" * 64, "/snapshots/logged", {"events": 7})
        return tracking.log_family(parent, "nightloom", METRICS, tags={}, curves=CURVES)


def state() -> list[Any]:
    import mlflow

    uri = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    return [uri, mlflow.active_run(), os.environ.get("MLFLOW_TRACKING_URI"), list(sys.path), sys.dont_write_bytecode]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_metrics_stand_with_their_data_set(
    tracking: Tracking, served: Served, run: str, elsewhere: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    if elsewhere:  # the process has an MLflow of its own
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
        mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/other.db")
    try:
        before = state()
        model = tracking.client.get_logged_model(log_model(tracking.client, served, run, {"kept": "yes"}, "# A card").model_id)
        assert state() == before
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
    assert str(model.status) == "READY"
    assert model.tags["kept"] == "yes"
    found = [(one.key, one.value, one.dataset_name, one.dataset_digest) for one in model.metrics]
    assert sorted(found) == [("temporal/hr_at_10", 0.5, "logged", "d" * 36), ("temporal/ndcg_at_10", 0.25, "logged", "d" * 36)]
    made = tracking.client.get_run(run)
    assert made.info.status == "FINISHED"
    assert model.model_id in {one.model_id for one in made.outputs.model_outputs}


def test_a_failure_leaves_no_state_and_no_finished_model(
    tracking: Tracking, served: Served, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow.pyfunc

    class Killed(BaseException):
        pass

    def killed(**_: Any) -> None:
        raise Killed

    before = state()
    monkeypatch.setattr(mlflow.pyfunc, "log_model", killed)
    with pytest.raises(Killed):
        log_model(tracking.client, served, run, {"kept": "no"}, "# A card")
    assert state() == before
    (left,) = tracking.client.search_logged_models([tracking.experiment("logged")], "tags.kept = 'no'")
    assert str(left.status) != "READY"
    assert tracking.client.get_run(run).info.status == "FINISHED"
