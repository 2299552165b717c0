"""Passwords in the addresses of both servers, and one for SQL: a real night, and one that fails, show them nowhere."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.servers import until_it_answers
from tests.tiny_models import WORDS, tiny_bert

REPOSITORY = Path(__file__).parents[2]
PLANTED = b"pl4nted"
CONFIG = """
name: mine
data: {{events: "sqlite:///shop.db?table=events", items: items.csv}}
pretrained: {{model: {model}}}
model: {{dim: 16, blocks: 1, heads: 2, scorers: [graph]}}
training: {{epochs: 1, workers: 1, precision: fp32, refit: false}}
evaluation: {{baselines: [popularity]}}
explain: {{users: 0}}
promotion: {{must_beat_baselines: false, resamples: 100}}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    rng = np.random.default_rng(0)
    rows = [(f"u{user}", f"i{rng.integers(20)}", 1_600_000_000 + int(rng.integers(10**7))) for user in range(40) for _ in range(8)]
    with sqlite3.connect(folder / "shop.db") as database:
        pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]).to_sql("events", database, index=False)
    pd.DataFrame({"item_id": [f"i{item}" for item in range(20)], "title": WORDS[:1] * 20}).to_csv(folder / "items.csv", index=False)
    (folder / "mine.yaml").write_text(CONFIG.format(model=tiny_bert(folder / "bert")))
    return folder


@pytest.fixture(scope="module")
def mlflow(home: Path) -> Iterator[str]:
    """Address of an MLflow server whose files are in the folder too."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    root = home / "mlruns"
    root.mkdir()
    line = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    line += ["--backend-store-uri", f"sqlite:///{root}/mlflow.db", "--artifacts-destination", str(root / "artifacts")]
    env = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (home / "mlflow.txt").open("wb") as log, subprocess.Popen(line, stdout=log, stderr=log, env=env) as process:
        try:
            until_it_answers(f"http://127.0.0.1:{port}/health", process, home / "mlflow.txt")
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


def night(home: Path, prefect_server: str, mlflow: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    secrets = {
        "PREFECT_API_URL": prefect_server.replace("http://", "http://night:pl4nted-one@"),
        "NIGHTLOOM_MLFLOW_URI": f"http://night:pl4nted-two@{mlflow}",
        "NIGHTLOOM_SQL_PASSWORD": "pl4nted-three",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "NIGHTLOOM_MLFLOW_WAIT": "5",
    }
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "src")])
    env = os.environ | secrets | {"PYTHONPATH": path, "PREFECT_HOME": str(home / "mlruns" / "prefect"), "HF_HUB_OFFLINE": "1"}
    line = [sys.executable, "-m", "flows.nightly", "--config", "mine.yaml", *arguments]
    return subprocess.run(line, cwd=home, env=env, capture_output=True, timeout=500, check=False)


def known_to_prefect(server: str) -> bytes:
    """All that Prefect's server keeps of runs, as its pages show it."""
    found = b""
    for kind in ("flow_runs", "task_runs", "artifacts", "logs"):
        head = {"content-type": "application/json"}
        request = urllib.request.Request(f"{server}/{kind}/filter", json.dumps({"limit": 200}).encode(), head)
        with urllib.request.urlopen(request, timeout=60) as answer:
            found += answer.read()
    return found


def test_nobody_finds_them(home: Path, prefect_server: str, mlflow: str) -> None:
    done = night(home, prefect_server, mlflow)
    assert done.returncode == 0, done.stderr
    away = night(home, prefect_server, "127.0.0.1:9", "--force")  # MLflow's own error repeats its address
    assert away.returncode == 1, away.stderr
    assert b"http://night:***@127.0.0.1:9" in away.stderr
    refused = night(home, prefect_server, mlflow, "--set", "data.events=sqlite:///shop.db?table=events&to%6ben=pl4nted-four")
    assert refused.returncode == 2
    texts = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    assert b"nightloom-mine" in texts[home / "mlruns" / "mlflow.db"]
    assert f"http://{mlflow}/#/experiments".encode() in texts[(home / "mlruns" / "nights" / "mine" / "latest").resolve() / "report.html"]
    prefect = known_to_prefect(prefect_server)
    assert b"night-mine" in prefect
    said = {"standard output": done.stdout + away.stdout + refused.stdout, "standard error": done.stderr + away.stderr + refused.stderr}
    assert not [place for place, text in (texts | said | {"Prefect": prefect}).items() if PLANTED in text]
