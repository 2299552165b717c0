"""A run that was killed with its worker holds the deployment's only place; the next start on its machine gives it free."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions, StateType
from prefect.states import Paused, Pending, Running

from nightloom.runs.processes import this_process
from tasks.progress import PROCESS_LABEL

ROOT = Path(__file__).parents[2]


def gone() -> str:
    """A process that has ended, as its run was labelled with it."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"]) as process:
        began = psutil.Process(process.pid).create_time()
        process.kill()
    return f"{socket.gethostname()} {process.pid} {began:.0f}"


def deployment(client: SyncPrefectClient, name: str) -> UUID:
    options = ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
    return client.create_deployment(client.create_flow_from_name("nightly"), name, concurrency_limit=1, concurrency_options=options)


def start(client: SyncPrefectClient, where: UUID, process: str | None = None) -> tuple[UUID, StateType]:
    """Start a run as a worker does; gives what the server made of it."""
    run = client.create_flow_run_from_deployment(where)
    state = client.set_flow_run_state(run.id, Pending()).state
    if process:
        client.update_flow_run_labels(run.id, {PROCESS_LABEL: process})
        state = client.set_flow_run_state(run.id, Running()).state
    return run.id, state.type


def cancel(prefect_server: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "flows.dead_runs"]
    env = os.environ | {"PREFECT_API_URL": prefect_server}
    return subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize("process", ["gone", "gone while it waited", "here", "elsewhere"])
def test_only_a_dead_run_of_this_machine_is_cancelled(prefect_server: str, process: str) -> None:
    host, pid, began = gone().split()
    dead = f"{host} {pid} {began}"
    label = {"gone": dead, "gone while it waited": dead, "here": this_process(), "elsewhere": f"other-{host} {pid} {began}"}[process]
    with SyncPrefectClient(prefect_server) as client:
        where = deployment(client, f"dead-{process.replace(' ', '-')}")
        killed, state = start(client, where, label)
        assert state == StateType.RUNNING
        assert start(client, where)[1] == StateType.CANCELLED, "its place is taken"
        if "waited" in process:
            assert client.set_flow_run_state(killed, Paused(timeout_seconds=3600)).state.type == StateType.PAUSED
        done = cancel(prefect_server)
        assert done.returncode == 0, done.stderr
        after = client.read_flow_run(killed).state
        assert after is not None
        if process.startswith("gone"):
            assert after.type == StateType.CANCELLED
            assert "is gone" in str(after.message)
            assert "its process is gone" in done.stdout
            assert start(client, where)[1] == StateType.PENDING, "its place is free"
        else:
            assert after.type == StateType.RUNNING
            client.delete_flow_run(killed)


def test_a_server_that_is_not_there_is_told_in_a_line() -> None:
    done = cancel("http://someone:pl4nted@127.0.0.1:9/api")
    assert done.returncode == 1
    assert "Prefect's server at http://someone:***@127.0.0.1:9/api does not answer" in done.stderr
    assert "Traceback" not in done.stderr
