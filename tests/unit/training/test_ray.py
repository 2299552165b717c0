"""Training on a Ray cluster of two nodes, each with one CPU, on this machine: the result of torchrun, whatever is lost on the way.

Tests marked `cluster` take minutes; `make test-ray` runs them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from nightloom.core.errors import InputError, TrainingError
from nightloom.training import ray_job
from nightloom.training.fine_tune import fine_tune
from nightloom.training.ray_job import BEAT, launch_on_ray
from nightloom.training.ray_workers import LeftAlone, TooSmall
from tests.unit.training.test_training_run import GOLDEN, losses, waited

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
SAME = {"epochs": 2, "workers": 2, "model": {"dropout": 0.0, "id_dropout": 0.0}}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head and a node; RAY_ADDRESS names them."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in QUIET.items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster

        made = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": True, "dashboard_port": 0})
        try:
            made.add_node(**NODE)
            patch.setenv("RAY_ADDRESS", f"http://{made.webui_url}")
            yield made
        finally:
            made.shutdown()


def workers(cluster: Any) -> list[psutil.Process]:
    """Living workers of Ray Train."""
    return [one for one in psutil.Process().children(recursive=True) if "RayTrainWorker" in " ".join(cmdline(one))]


def cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def jobs() -> list[Any]:
    from ray.job_submission import JobSubmissionClient

    return JobSubmissionClient(os.environ["RAY_ADDRESS"]).list_jobs()


@pytest.mark.cluster
def test_a_job_on_two_nodes_has_the_golden_loss(cluster: Any, tmp_path: Path, settings, shop) -> None:
    import ray

    heard: list[dict[str, Any]] = []
    config = settings(launcher="ray", **SAME)
    figures = fine_tune(config, "temporal", shop.prepared, shop.pretrained, tmp_path, heard.append)
    assert losses(tmp_path) == pytest.approx(GOLDEN, abs=1e-4)
    assert (figures["workers"], figures["refitted"]) == (2, True)
    assert [line["epoch"] for line in heard if line["phase"] == "search"] == [1, 2]
    assert "Started training worker group of size 2" in (tmp_path / "log.txt").read_text()
    assert not (tmp_path / BEAT).exists()
    assert not (tmp_path / "ray").exists()
    # Three workers do not fit the two CPUs.
    ray.init(cluster.address, logging_level="ERROR")
    try:
        assert TooSmall(2, seconds=-1)() is not None  # it has been too small for longer than no time at all
        assert TooSmall(2, seconds=60)() is None
        small = TooSmall(3, seconds=0)
        assert waited(lambda: small() is not None, 10)
        assert "training.workers: 3 workers need a CPU each, and the Ray cluster has had 2" in str(small())
    finally:
        ray.shutdown()


@pytest.mark.cluster
def test_ray_and_torchrun_give_the_same_model(cluster: Any, tmp_path: Path, settings, shop) -> None:
    for launcher in ("ray", "torchrun"):
        fine_tune(settings(launcher=launcher, workers=2), "temporal", shop.prepared, shop.pretrained, tmp_path / launcher)
    same(tmp_path / "ray", tmp_path / "torchrun")


def same(one: Path, other: Path) -> None:
    assert losses(one) == losses(other)
    first, second = (load_file(folder / "bundle" / "model.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


@pytest.fixture(scope="module")
def undisturbed(shop, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], Path]:
    """A function: config -> folder of the same run by torchrun."""
    made: list[Path] = []

    def train(config: Any) -> Path:
        if not made:
            made.append(tmp_path_factory.mktemp("undisturbed"))
            other = config.model_copy(update={"training": config.training.model_copy(update={"launcher": "torchrun"})})
            fine_tune(other, "temporal", shop.prepared, shop.pretrained, made[0])
        return made[0]

    return train


LONG = {"launcher": "ray", "workers": 2, "epochs": 8, "patience": 8}


def at_epoch(number: int, act: Callable[[], Any]) -> tuple[Callable[[dict[str, Any]], None], list[Any]]:
    """What does something once, in that epoch, and the list of what it gave."""
    done: list[Any] = []

    def on_epoch(line: dict[str, Any]) -> None:
        if line["epoch"] >= number and not done:
            done.append(act())

    return on_epoch, done


@pytest.mark.cluster
def test_a_killed_worker_is_started_again(cluster: Any, undisturbed, tmp_path: Path, settings, shop) -> None:
    on_epoch, done = at_epoch(2, lambda: [one.send_signal(signal.SIGKILL) for one in workers(cluster)[-1:]])
    fine_tune(settings(**LONG), "temporal", shop.prepared, shop.pretrained, tmp_path, on_epoch)
    assert done == [[None]]
    assert (tmp_path / "log.txt").read_text().count("Started training worker group of size 2") == 2
    same(tmp_path, undisturbed(settings(**LONG)))


@pytest.mark.cluster
def test_a_lost_node_s_successor_takes_its_place(cluster: Any, undisturbed, tmp_path: Path, settings, shop) -> None:
    def lose() -> None:
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        cluster.add_node(**NODE)

    on_epoch, done = at_epoch(2, lose)
    fine_tune(settings(**LONG), "temporal", shop.prepared, shop.pretrained, tmp_path, on_epoch)
    assert done
    assert (tmp_path / "log.txt").read_text().count("Started training worker group of size 2") == 2
    same(tmp_path, undisturbed(settings(**LONG)))


@pytest.mark.cluster
def test_a_cancel_stops_the_job(cluster: Any, tmp_path: Path, settings, write_run) -> None:
    path = write_run(settings(launcher="ray", workers=2, epochs=100_000, patience=100_000), tmp_path)

    class Cancelled(BaseException):
        pass

    def cancel(line: dict[str, Any]) -> None:
        assert len(workers(cluster)) == 2
        raise Cancelled

    with pytest.raises(Cancelled):
        launch_on_ray(path, 2, tmp_path / "log.txt", cancel)
    assert next(job.status for job in jobs() if (job.metadata or {}).get("run") == str(path)) == "STOPPED"
    assert waited(lambda: not workers(cluster), 60)


CALLER = """
import sys
from pathlib import Path
from nightloom.training.ray_job import launch_on_ray
launch_on_ray(Path(sys.argv[1]), 2, Path(sys.argv[1]).parent / "log.txt")
"""


@pytest.mark.cluster
def test_a_night_started_again_takes_the_running_job_over(cluster: Any, undisturbed, tmp_path: Path, settings, write_run) -> None:
    path = write_run(settings(**LONG), tmp_path)
    caller = subprocess.Popen([sys.executable, "-c", CALLER, str(path)], env=os.environ | {"PYTHONPATH": "src"})
    try:
        assert waited((tmp_path / "curves.jsonl").exists)
    finally:
        caller.kill()
        caller.wait()
    launch_on_ray(path, 2, tmp_path / "log.txt")
    assert [job.status for job in jobs() if (job.metadata or {}).get("run") == str(path)] == ["SUCCEEDED"]
    same(tmp_path, undisturbed(settings(**LONG)))


@pytest.mark.cluster
def test_what_the_job_refuses_is_refused(cluster: Any, tmp_path: Path, settings, shop) -> None:
    other = tmp_path / "pretrained"
    other.mkdir()
    np.save(other / "text_vectors.npy", np.zeros((3, 4), dtype=np.float32))
    np.save(other / "text_mask.npy", np.zeros(3, dtype=bool))
    with pytest.raises(InputError, match="3 text vectors for 30 items"):
        fine_tune(settings(launcher="ray", workers=2), "temporal", shop.prepared, other, tmp_path / "out")


def test_a_job_whose_night_is_gone_ends(tmp_path: Path) -> None:
    beat = tmp_path / BEAT
    alone = LeftAlone(beat, seconds=0.4)
    for count in range(3):  # a night that is there
        beat.write_text(str(count))
        time.sleep(0.2)
        assert alone() is None
    time.sleep(0.5)
    assert "has not been heard of" in str(alone())


@pytest.mark.cluster
def test_each_epoch_is_told_once_where_the_driver_is_lost(cluster: Any, undisturbed, tmp_path: Path, settings, shop) -> None:
    told: list[tuple[str, int]] = []

    def lose(line: dict[str, Any]) -> None:
        told.append((line["phase"], line["epoch"]))
        if len(told) == 2:
            (driver,) = [one for one in psutil.process_iter(["cmdline"]) if is_driver(one, tmp_path)]
            driver.kill()

    fine_tune(settings(**LONG), "temporal", shop.prepared, shop.pretrained, tmp_path, lose)
    assert len([job for job in jobs() if (job.metadata or {}).get("run") == str(tmp_path / "run.json")]) == 2
    assert len(told) == len(set(told)) == len((tmp_path / "curves.jsonl").read_text().splitlines())
    same(tmp_path, undisturbed(settings(**LONG)))


def is_driver(process: psutil.Process, out: Path) -> bool:
    """Whether a process is the job's own, not the shell that started it."""
    words = process.info["cmdline"] or []
    return words[1:3] == ["-m", "nightloom.training"] and str(out / "run.json") in words and "ray" in words


@pytest.mark.cluster
def test_what_a_job_refuses_before_it_has_a_folder_is_refused(cluster: Any, tmp_path: Path, settings, write_run, monkeypatch) -> None:
    path, submit = write_run(settings(launcher="ray"), tmp_path), ray_job.submit
    monkeypatch.setattr(
        ray_job, "submit", lambda client, words, *more: submit(client, [one.replace("run.json", "nowhere.json") for one in words], *more)
    )
    with pytest.raises(InputError, match=r"nowhere\.json"):
        launch_on_ray(path, 2, tmp_path / "log.txt")


@pytest.mark.parametrize(("there", "enough"), [({"CPU": 64, "GPU": 1}, False), ({"CPU": 4, "GPU": 8}, True)])
def test_a_worker_of_a_cluster_with_gpus_needs_one_of_these(monkeypatch, there: dict[str, int], enough: bool) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: there)
    small = TooSmall(2, "GPU", seconds=0.05)
    time.sleep(0.1)
    said = small()
    assert said is None if enough else "2 workers need a GPU each" in str(said)


def test_without_ray_an_address_or_a_cluster_the_night_says_what_to_do(tmp_path: Path, settings, write_run, monkeypatch) -> None:
    path = write_run(settings(launcher="ray"), tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(InputError, match=r"Set RAY_ADDRESS=http://HEAD:8265"):
        launch_on_ray(path, 2, tmp_path / "log.txt")
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")
    with pytest.raises(TrainingError, match=r"RAY_ADDRESS=http://127\.0\.0\.1:9: no Ray cluster takes jobs there"):
        launch_on_ray(path, 2, tmp_path / "log.txt")
    for secret in ("http://user:topsecret@127.0.0.1:9", "user:topsecret@127.0.0.1:9"):
        monkeypatch.setenv("RAY_ADDRESS", secret)
        with pytest.raises(TrainingError, match="no Ray cluster takes jobs there") as end:
            launch_on_ray(path, 2, tmp_path / "log.txt")
        assert "topsecret" not in str(end.value)
    monkeypatch.setitem(sys.modules, "ray.job_submission", None)
    with pytest.raises(InputError, match=r"pip install 'nightloom\[ray\]'"):
        launch_on_ray(path, 2, tmp_path / "log.txt")
