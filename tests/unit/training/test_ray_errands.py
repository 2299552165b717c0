"""Errands on a Ray cluster of two nodes: baselines and texts, jobs that are lost, cancelled or refused.

Tests marked `cluster` take minutes; `make test-ray` runs them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nightloom.config import PretrainedConfig
from nightloom.core.errors import InputError, TrainingError
from nightloom.encoders.blocks import Encoding
from nightloom.encoders.load_pretrained import load_pretrained
from nightloom.encoders.text_cache import SHARD
from nightloom.encoders.weights import resolve
from nightloom.experiments.baselines import measure
from nightloom.training import ray_job
from nightloom.training.launch import MAX_RESTARTS
from nightloom.training.ray_errands import Errand, run_errands
from nightloom.training.ray_texts import encode_on_ray
from tests.tiny_models import tiny_bert
from tests.unit.training.conftest import N_USERS
from tests.unit.training.test_ray import NODE, cluster, jobs

__all__ = ["cluster"]


@pytest.mark.cluster
def test_a_baseline_is_fitted_and_ranked_on_a_node_as_here(cluster: Any, tmp_path: Path, settings, shop) -> None:
    prepared = shutil.copytree(shop.prepared, tmp_path / "prepared")
    pd.DataFrame({"user_id": [f"u{one}" for one in range(N_USERS)]}).to_parquet(prepared / "users.parquet")
    found, lines = {}, []
    for launcher in ("ray", "torchrun"):
        folder = tmp_path / launcher
        folder.mkdir()
        found[launcher] = measure(settings(launcher=launcher), "gru", prepared, shop.pretrained, folder, lines.append)
    assert lines[0] == lines[1]
    assert lines[0].startswith("gru: fitted and ranked, ")
    for figure in ("family", "metrics", "intervals", "asked"):
        assert found["ray"][figure] == found["torchrun"][figure]
    pd.testing.assert_frame_equal(*(pd.read_parquet(tmp_path / one / "per_user.parquet") for one in found))
    (job,) = [one for one in jobs() if "ran" in (one.metadata or {})]
    assert job.metadata["ran"] == str(tmp_path / "ray" / "work.json")
    with pytest.raises(TrainingError, match="family gru failed"):
        measure(settings(launcher="ray"), "gru", tmp_path, shop.pretrained, tmp_path / "ray")


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A catalogue of six blocks of texts and a tail, its language model, and its vectors by this machine."""
    folder = tmp_path_factory.mktemp("catalogue")
    model, many = tiny_bert(folder / "model"), 6 * SHARD + 100
    titles = [f"film {at} of the {'wild ' * (at % 7)}sea" if at % 50 else None for at in range(many)]
    pd.DataFrame({"text": titles}).to_parquet(folder / "items.parquet")
    (folder / "here").mkdir()
    here = load_pretrained(PretrainedConfig(model=str(model)), folder, folder / "mlruns", folder / "here")
    return SimpleNamespace(prepared=folder, model=model, vectors=np.load(folder / "here" / "text_vectors.npy"), encoded=here["encoded"])


def spread(catalogue: SimpleNamespace, root: Path, told: Callable[[int, int], None]) -> dict[str, Any]:
    """The stage with its texts encoded on the cluster, two jobs at once."""
    (root / "out").mkdir(parents=True, exist_ok=True)
    elsewhere = encode_on_ray(root / "out" / "ray", 2)
    config = PretrainedConfig(model=str(catalogue.model))
    return load_pretrained(config, catalogue.prepared, root / "mlruns", root / "out", told, elsewhere=elsewhere)


def encoders(root: Path) -> list[Any]:
    """The jobs of `spread` under a root."""
    return [job for job in jobs() if (job.metadata or {}).get("ran", "").startswith(str(root / "out"))]


@pytest.mark.cluster
def test_texts_are_encoded_on_the_nodes_as_here(cluster: Any, catalogue: SimpleNamespace, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    figures = spread(catalogue, tmp_path, lambda *one: told.append(one))
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "text_vectors.npy"), catalogue.vectors)
    assert figures["encoded"] == catalogue.encoded > 6 * SHARD - SHARD
    assert [job.status for job in encoders(tmp_path)] == ["SUCCEEDED", "SUCCEEDED"]
    assert len({job.driver_node_id for job in encoders(tmp_path)}) == 2
    assert told[-1] == (catalogue.encoded, catalogue.encoded)
    assert not (tmp_path / "out" / "ray").exists()
    assert spread(catalogue, tmp_path, lambda *_: None)["encoded"] == 0
    assert len(encoders(tmp_path)) == 2


@pytest.mark.cluster
def test_texts_of_a_lost_node_are_encoded_by_another(cluster: Any, catalogue: SimpleNamespace, tmp_path: Path) -> None:
    lost: list[Any] = []

    def lose(done: int, total: int) -> None:
        if not lost:
            lost.append(next(iter(cluster.worker_nodes)))
            cluster.remove_node(lost[0], allow_graceful=False)
            cluster.add_node(**NODE)

    spread(catalogue, tmp_path, lose)
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "text_vectors.npy"), catalogue.vectors)
    assert sorted(job.status for job in encoders(tmp_path)) == ["FAILED", "SUCCEEDED", "SUCCEEDED"]


@pytest.mark.cluster
def test_a_cancelled_night_goes_on_from_the_blocks_that_were_encoded(cluster: Any, catalogue: SimpleNamespace, tmp_path: Path) -> None:
    def cancel(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        spread(catalogue, tmp_path, cancel)
    assert all(job.status.is_terminal() for job in encoders(tmp_path))
    told: list[tuple[int, int]] = []
    figures = spread(catalogue, tmp_path, lambda *one: told.append(one))
    assert figures["encoded"] <= catalogue.encoded - SHARD, "a whole block was there"
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "text_vectors.npy"), catalogue.vectors)


@pytest.mark.cluster
def test_another_model_on_a_node_is_refused(cluster: Any, catalogue: SimpleNamespace, tmp_path: Path) -> None:
    weights = resolve(str(catalogue.model))
    encoding = replace(Encoding.of(weights, "tiny", "mean", 64, "torch", tmp_path), fingerprint="0" * 64)
    with pytest.raises(InputError, match=r"is not the model of the night"):
        encode_on_ray(tmp_path / "ray", 1)(encoding, ["a", "b"], lambda *_: None)


class Told:
    """A client of a cluster that says this of its job, each once; an error is what it raises."""

    def __init__(self, *said: Any) -> None:
        self.said, self.submitted, self.stopped, self.there = list(said), [], [], True

    def list_jobs(self) -> list[Any]:
        return []

    def submit_job(self, **given: Any) -> str:
        self.submitted.append(given)
        return str(given["submission_id"])

    def get_job_info(self, job: str) -> Any:
        from ray.job_submission import JobDetails

        found = self.said.pop(0)
        if isinstance(found, Exception):
            raise found
        self.there = found["status"] != "FAILED"
        return JobDetails(submission_id=job, type="SUBMISSION", entrypoint="python", **found)

    def get_job_logs(self, _: str) -> str:
        if not self.there:  # its node is gone
            raise SILENT
        return "pop: fitted\n"

    def stop_job(self, job: str) -> None:
        self.stopped.append(job)

    def get_job_status(self, _: str) -> Any:
        from ray.job_submission import JobStatus

        return JobStatus.STOPPED


RUNS, ENDED = {"status": "RUNNING"}, {"status": "SUCCEEDED", "driver_exit_code": 0}
SILENT = ConnectionError("Failed to connect to Ray")


def on(client: Told, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, list[str]]:
    """The exit code of a module on a cluster, and its lines."""
    lines: list[str] = []
    monkeypatch.setattr(ray_job, "connect", lambda: client)
    monkeypatch.setattr(ray_job, "POLL_SECONDS", 0.0)
    return run_errands("some.module", [Errand(folder / "work.json", folder / "log.txt", lines.append)])[0], lines


def test_a_baseline_s_job_rides_out_a_cluster_that_is_silent_for_a_while(tmp_path: Path, monkeypatch) -> None:
    client = Told(RUNS, SILENT, SILENT, ENDED)
    assert on(client, tmp_path, monkeypatch) == (0, ["pop: fitted"])
    assert client.stopped == []
    monkeypatch.setattr(ray_job, "PATIENCE_SECONDS", -1.0)
    with pytest.raises(TrainingError, match=r"not answered .*Start again when it is back: what is done is found"):
        on(Told(RUNS, SILENT), tmp_path, monkeypatch)


def test_a_job_that_found_no_free_cpu_in_ray_s_time_is_handed_in_again(tmp_path: Path, monkeypatch) -> None:
    never = {"status": "FAILED", "error_type": "JOB_SUPERVISOR_ACTOR_START_TIMEOUT", "message": "failed to start within 900 seconds"}
    client = Told(never, never, RUNS, ENDED)
    assert on(client, tmp_path, monkeypatch) == (0, ["pop: fitted"])
    assert len({one["submission_id"] for one in client.submitted}) == 3


LOST = {"status": "FAILED", "error_type": "JOB_SUPERVISOR_ACTOR_DIED", "message": "the node is gone"}


def test_a_job_that_was_lost_with_its_node_is_handed_in_again(tmp_path: Path, monkeypatch) -> None:
    client = Told(RUNS, *[LOST] * MAX_RESTARTS, RUNS, ENDED)
    assert on(client, tmp_path, monkeypatch) == (0, ["pop: fitted"])
    assert len({one["submission_id"] for one in client.submitted}) == MAX_RESTARTS + 1
    assert client.stopped == []
    with pytest.raises(TrainingError, match=r"was lost\. the node is gone"):
        on(Told(RUNS, *[LOST] * (MAX_RESTARTS + 1)), tmp_path, monkeypatch)
    with pytest.raises(TrainingError, match=r"was stopped in Ray"):
        on(Told(RUNS, {"status": "STOPPED"}), tmp_path, monkeypatch)


def test_errands_run_beside_each_other_and_the_first_that_fails_ends_all(tmp_path: Path, monkeypatch) -> None:
    client = Told(RUNS, RUNS, {"status": "FAILED", "driver_exit_code": 2})
    client.get_job_logs = lambda _: "no such model\n"  # type: ignore[method-assign]
    monkeypatch.setattr(ray_job, "connect", lambda: client)
    monkeypatch.setattr(ray_job, "POLL_SECONDS", 0.0)
    errands = [Errand(tmp_path / f"{at}.json", tmp_path / f"{at}.txt", lambda _: None) for at in range(5)]
    assert run_errands("some.module", errands, at_once=2) == (2, tmp_path / "0.txt")
    assert len(client.submitted) == 2
    assert client.stopped == [client.submitted[1]["submission_id"]]
