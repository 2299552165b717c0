"""A whole night whose training is a job of a Ray cluster of two nodes: what it makes is what a night with torchrun makes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.flows.test_nightly import environment
from tests.small_home import write_home
from tests.unit.training.test_ray import cluster

__all__ = ["cluster"]


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
