"""A night and a replay whose trainings are jobs of a Ray cluster of two nodes: they make what those with torchrun make."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from nightloom.experiments.replay import METRIC
from tests.flows.test_nightly import environment
from tests.flows.test_replay import COMMAND, NIGHTS, home, replay
from tests.small_home import write_home
from tests.unit.training.test_ray import cluster

__all__ = ["cluster", "home"]


def night(home: Path, launcher: str) -> dict[str, Any]:
    """A night under a root of its own; gives hashes of what its stages made, its curve, metrics and decision."""
    command = [sys.executable, "-m", "flows.nightly", "--config", "mine.yaml", "--set", f"training.launcher={launcher}"]
    env = environment(home) | {"NIGHTLOOM_ROOT": str(home / launcher), "PREFECT_HOME": str(home / "prefect")}
    done = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, timeout=1100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    latest = home / launcher / "nights" / "mine" / "latest"
    report = json.loads((latest / "report.json").read_text(encoding="utf-8"))
    made = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (latest / "manifests").glob("*.json")}
    bundle = {name: digest for name, digest in made["fine_tune"]["digests"].items() if "/bundle/" in name}
    assert bundle
    log = Path(made["fine_tune"]["folder"]) / "streaming" / "log.txt"
    assert ("Started training worker group of size 2" in log.read_text(encoding="utf-8")) == (launcher == "ray")
    return {
        "content": {stage: made[stage]["content"] for stage in ("validate", "prepare", "load_pretrained", "fine_tune", "evaluate")},
        "bundle": bundle,
        "metrics": report["metrics"],
        "gate": (report["gate"]["decision"], report["gate"]["reasons"]),
    }


@pytest.mark.cluster
@pytest.mark.timeout(2400)
def test_a_night_on_ray_makes_what_a_night_with_torchrun_makes(cluster: Any, tmp_path: Path) -> None:
    home = write_home(tmp_path, workers=2)
    assert os.environ["RAY_ADDRESS"].startswith("http://127.0.0.1:")
    assert night(home, "ray") == night(home, "torchrun")


@contextmanager
def one_core() -> Iterator[None]:
    """Processes that are started in the block have one core."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(mine)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


@pytest.mark.cluster
@pytest.mark.timeout(2400)
def test_a_replay_on_ray_finds_what_one_with_torchrun_finds(cluster: Any, home: Path) -> None:
    found = []
    for launcher, at_once in (("ray", "2"), ("torchrun", "1")):
        shutil.rmtree(home / "mlruns", ignore_errors=True)
        command = (*COMMAND, "--at-once", at_once, "--set", f"training.launcher={launcher}")
        with one_core() if launcher == "torchrun" else nullcontext():  # sums of two threads have other last bits, and a node has one
            done = replay(home, *command)
        assert done.returncode == 0, done.stdout + done.stderr
        (written,) = (home / "mlruns" / "nights" / "mine-replay").glob("*/replay.json")
        nights = json.loads(written.read_text(encoding="utf-8"))["nights"]
        found.append([(night["day"], night[METRIC], night["epochs"], night["weights"]) for night in nights])
    assert len(found[0]) == NIGHTS
    assert found[0] == found[1]
