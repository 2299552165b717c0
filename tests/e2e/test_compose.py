"""The processes of deployment/compose.yaml, started by hand with its own commands: a night and a request go through them.

PostgreSQL is a real one, and no container engine is needed. Names of services become 127.0.0.1, their ports free ones, /data and /config
folders of the test.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import psycopg2
import pytest
import yaml

from nightloom.client import Client
from tests.flows.test_nightly import REPOSITORY, home
from tests.postgres_server import PostgresServer, postgres_server
from tests.servers import free_port

__all__ = ["home"]
DEPLOYMENT = REPOSITORY / "deployment"
ASKED = {
    "POSTGRES_PASSWORD": "not-a-secret",
    "NIGHTLOOM_API_KEYS": f"reader:{'r' * 16},writer:{'w' * 16}",
    "NIGHTLOOM_SECRET": "sign-1",
    "NAME": "",
}
HEALTH_SECONDS = 400


class Compose:
    """What the file says, on this machine."""

    def __init__(self, data: Path, config: Path, postgres: PostgresServer) -> None:
        self.said = yaml.safe_load((DEPLOYMENT / "compose.yaml").read_text(encoding="utf-8"))["services"]
        self.ports = {"5000": free_port(), "4200": free_port(), "8000": free_port(), "8080": free_port()}
        self._data, self._config, self.postgres = data, config, postgres
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        bin = str(Path(sys.executable).parent)
        self.base = {"PATH": f"{bin}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": f"{REPOSITORY / 'src'}{os.pathsep}{REPOSITORY}"}
        self.base |= {"HOME": str(data), "HF_HUB_OFFLINE": "1", "PREFECT_WORKER_WEBSERVER_PORT": str(self.ports["8080"])}
        for name, value in re.findall(r"(\w+)=(\S+)", (DEPLOYMENT / "Dockerfile").read_text(encoding="utf-8").split("ENV PATH")[-1]):
            if name not in ("PATH", "PYTHONPATH"):  # the image's own settings
                self.base[name] = self.here(value).replace("/app", str(REPOSITORY))

    def here(self, text: str) -> str:
        """A text of the file as this machine needs it."""
        text = re.sub(r"\$\{(\w+)(?::[?-][^}]*)?\}", lambda found: ASKED[found[1]], text)
        text = text.replace("postgres:5432", f"127.0.0.1:{self.postgres.port}").replace("0.0.0.0", "127.0.0.1")
        text = re.sub(r"/(data|config)\b", lambda found: str({"data": self._data, "config": self._config}[found[1]]), text)
        for port, free in self.ports.items():
            text = re.sub(rf"(--port |http://(?:mlflow|prefect|127\.0\.0\.1):|,127\.0\.0\.1:){port}\b", rf"\g<1>{free}", text)
        return text.replace("http://mlflow:", "http://127.0.0.1:").replace("http://prefect:", "http://127.0.0.1:")

    def environment(self, name: str) -> dict[str, str]:
        """Of a service."""
        return self.base | {key: self.here(str(value)) for key, value in self.said[name]["environment"].items()}

    def start(self, name: str) -> None:
        """Start a service and wait until its health check passes."""
        log = self._data / f"{name}.log"
        command = shlex.split(self.here(self.said[name]["command"]))
        with log.open("wb") as out:
            process = subprocess.Popen(command, cwd=REPOSITORY, env=self.environment(name), stdout=out, stderr=out, start_new_session=True)
        self.running[name] = process
        check = [self.here(one) for one in self.said[name]["healthcheck"]["test"][1:]]
        ends = time.monotonic() + HEALTH_SECONDS
        while subprocess.run(check, env=self.base, capture_output=True, check=False).returncode:
            text = log.read_text(errors="replace")[-3000:]
            assert process.poll() is None, f"{name} has ended: {text}"
            assert time.monotonic() < ends, f"{name} is not well: {text}"
            time.sleep(0.5)

    def run(self, name: str, *command: str) -> str:
        """What a command says that is run in a service's container."""
        done = subprocess.run(command, cwd=REPOSITORY, env=self.environment(name), capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, done.stdout + done.stderr + (self._data / f"{name}.log").read_text(errors="replace")[-3000:]
        return done.stdout

    def stop(self) -> None:
        """End what was started, the last first."""
        for process in reversed(self.running.values()):
            for sign in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(process.pid, sign)
                    process.wait(30)
                except (ProcessLookupError, subprocess.TimeoutExpired):
                    continue


@pytest.fixture(scope="module")
def compose(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    with ExitStack() as stack:
        postgres = stack.enter_context(postgres_server())
        connection = psycopg2.connect(postgres.url)
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("CREATE ROLE nightloom SUPERUSER LOGIN")  # as the image makes it
            for statement in (DEPLOYMENT / "postgres.sql").read_text(encoding="utf-8").split(";"):
                if statement.strip():
                    cursor.execute(statement)
        connection.close()
        found = Compose(tmp_path_factory.mktemp("data"), home, postgres)
        stack.callback(found.stop)
        yield found


@pytest.mark.timeout(1400)
def test_a_night_and_a_request_go_through_the_compose_file(compose: Compose) -> None:
    for name in ("mlflow", "prefect", "worker"):
        compose.start(name)
    assert "nightly/mine" in compose.run("worker", "nightloom", "deploy", compose.here("/config/mine.yaml"))
    compose.run("worker", "prefect", "deployment", "run", "nightly/mine", "--watch")
    assert "champion" in compose.run("worker", "nightloom", "versions", "mine")
    compose.start("service")
    address = f"http://127.0.0.1:{compose.ports['8000']}"
    with Client(address, key="w" * 16) as client:
        before = client.recommend("u03", k=5)
        assert len(before.items) == 5
        client.add_events(
            [
                {
                    "event_id": "e1",
                    "user_id": "u03",
                    "item_id": before.items[0].item_id,
                    "event": "interaction",
                    "timestamp": time.time(),
                    "value": 5,
                }
            ]
        )
        assert before.items[0].item_id not in [one.item_id for one in client.recommend("u03", k=5).items]
    assert asked(compose, "mlflow", "SELECT name, alias, version FROM registered_model_aliases WHERE alias = 'champion'") == [
        ("nightloom-mine", "champion", 1)
    ]
    assert asked(compose, "prefect", "SELECT state_name FROM flow_run WHERE state_type = 'COMPLETED'") == [("Completed",)]
    (schema,) = asked(compose, "events", "SELECT table_schema FROM information_schema.tables WHERE table_name = 'events'")
    ends = time.monotonic() + HEALTH_SECONDS
    while not (found := asked(compose, "events", f'SELECT event_id, user_id, item_id FROM "{schema[0]}".events')):
        assert time.monotonic() < ends, "the service's outbox has not gone over"
        time.sleep(0.2)
    assert found == [("e1", "u03", before.items[0].item_id)]


def asked(compose: Compose, database: str, question: str) -> list[tuple[object, ...]]:
    """Rows of one of the three databases."""
    with closing(psycopg2.connect(f"{compose.postgres.url.rpartition('/')[0]}/{database}")) as connection, connection.cursor() as cursor:
        cursor.execute(question)
        return list(cursor.fetchall())


def test_mlflow_answers_under_its_name_and_no_other(compose: Compose) -> None:
    """Pages that a browser was led to under another name would else read it (DNS rebinding)."""
    compose.running or compose.start("mlflow")

    def status(host: str) -> int:
        address = f"http://127.0.0.1:{compose.ports['5000']}/api/2.0/mlflow/experiments/search"
        request = urllib.request.Request(address, b'{"max_results": 1}', {"host": host, "content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as found:
                return int(found.status)
        except urllib.error.HTTPError as error:
            return int(error.code)

    assert status("mlflow:5000") == 200
    assert status("elsewhere.example") == 403
