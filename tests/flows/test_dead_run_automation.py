"""The automation that `deploy` makes: a run that was killed counts as crashed, on a real server with its services.

On PostgreSQL, as `deployment/compose.yaml` has it: on SQLite the server stands still for a minute now and then (docs/deployment.md,
"Servers"), and a run without signs of life for so long is one that was killed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.flows import load_flow_from_entrypoint

from flows import deploy
from tests.postgres_server import PostgresServer, postgres_server
from tests.servers import free_port, until_it_answers
from tests.waiting import until

SLEEPER = """
import time
from prefect import flow

@flow
def sleeper():
    time.sleep(600)
"""

QUESTION = """
from prefect import flow, pause_flow_run, tags

@flow
def question():
    pause_flow_run(timeout=600)

with tags("name:mine"):
    question()
"""
"""As a night asks: a run that waits, without a deployment."""


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def served(tmp_path: Path, postgres: PostgresServer) -> Iterator[str]:
    """Address of a server that evaluates automations, which that of the other tests does not."""
    port = free_port()
    settings = os.environ | {
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_DATABASE_CONNECTION_URL": postgres.url.replace("postgresql://", "postgresql+asyncpg://"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_ENABLED": "false",
    }
    settings.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    log = tmp_path / "log.txt"
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=settings) as process:
        try:
            until_it_answers(f"http://127.0.0.1:{port}/api/health", process, log)
            yield f"http://127.0.0.1:{port}/api"
        finally:
            process.terminate()


def test_a_run_that_was_killed_counts_as_crashed(tmp_path: Path, served: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploy, "SILENT_MINUTES", 1 / 6)  # the shortest that Prefect allows
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    flow = load_flow_from_entrypoint(f"{tmp_path / 'sleeper.py'}:sleeper")
    with SyncPrefectClient(served) as client:
        made = client.create_deployment(client.create_flow(flow), "mine", path=str(tmp_path), entrypoint="sleeper.py:sleeper")
        deploy.watch(client, made, "sleeper/mine", "mine")
        run = client.create_flow_run_from_deployment(made).id
        env = os.environ | {"PREFECT_API_URL": served, "PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT__FLOW_RUN_ID": str(run)}
        with (
            subprocess.Popen([sys.executable, "-m", "prefect.engine"], cwd=tmp_path, env=env) as process,
            subprocess.Popen([sys.executable, "-c", QUESTION], cwd=tmp_path, env=env | {"PREFECT__FLOW_RUN_ID": ""}) as other,
        ):
            try:
                until(lambda: {_state(client, one.id) for one in client.read_flow_runs()} == {"RUNNING", "PAUSED"}, 0.3)
                time.sleep(3)  # their heartbeats are on their way
            finally:
                process.kill()
                other.kill()
        for one in client.read_flow_runs():
            until(lambda one=one: _state(client, one.id) == "CRASHED", 0.3)  # type: ignore[misc]
            assert "No sign of life" in (client.read_flow_run(one.id).state.message or "")  # type: ignore[union-attr]
        assert run in {one.id for one in client.read_flow_runs()}


def _state(client: SyncPrefectClient, run: object) -> str:
    return client.read_flow_run(run).state.type.value  # type: ignore[arg-type,union-attr]
