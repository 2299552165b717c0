"""Nights of two machines that share an S3 store and MLflow: what one has made, the other finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tests.flows.test_nightly import environment, home
from tests.s3_server import s3_server

__all__ = ["home"]


def test_a_night_goes_on_from_what_another_machine_has_made(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each machine has a folder of its own, and after the first a config whose gate alone is another."""
    with s3_server(tmp_path) as found:
        for name, value in found.items():
            monkeypatch.setenv(name, value)
        store = fsspec.filesystem("s3", use_listings_cache=False)
        store.mkdir("nights")

        def night(machine: str, *arguments: str) -> subprocess.CompletedProcess[str]:
            given = {
                "NIGHTLOOM_ROOT": str(tmp_path / machine),
                "NIGHTLOOM_STORE": "s3://nights/mine",
                "NIGHTLOOM_MLFLOW_URI": f"sqlite:///{tmp_path}/mlflow.db",
            }
            command = [sys.executable, "-m", "flows.nightly", "--config", "mine.yaml", *arguments]
            return subprocess.run(
                command, cwd=home, env=environment(home) | os.environ | given, capture_output=True, text=True, timeout=500, check=False
            )

        def latest(machine: str) -> dict[str, Any]:
            content: dict[str, Any] = json.loads((tmp_path / machine / "nights" / "mine" / "latest" / "report.json").read_text())
            return content

        first = night("first")
        assert first.returncode == 0, first.stdout + first.stderr
        assert latest("first")["gate"]["decision"] == "promote"
        assert {path.split("/")[2] for path in store.find("nights/mine")} == {"artifacts", "nights", "snapshots", "stages"}

        same = night("second")
        assert same.returncode == 0, same.stdout + same.stderr
        assert "nothing changed" in same.stdout
        assert latest("second") == latest("first")
        assert not (tmp_path / "second" / "stages").exists()

        for machine, margin in (("second", 0.5), ("third", 0.4)):  # a second night knows how many rows the first had, a third no more
            other = night(machine, "--set", f"promotion.margin={margin}")
            assert other.returncode == 0, other.stdout + other.stderr
        before = ("validate", "prepare", "load_pretrained", "fine_tune")
        stages = {one: said["status"] for one, said in latest("third")["stages"].items()}
        assert {one for one, status in stages.items() if status == "reused"} == {*before, "explain"}
        assert latest("third")["versions"]["champion"] is not None
        assert json.loads(store.cat_file("nights/mine/nights/mine/latest.json"))["night"] == latest("third")["night"]
        assert not [path for path in tmp_path.rglob("artifacts") if path.parent.name in ("first", "second", "third")]
