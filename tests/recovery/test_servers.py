"""Servers that go away while a night runs, nights at once, and trim beside a night: the hashes are those of an undisturbed night."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.recovery.conftest import Maker
from tests.recovery.parts import Parts, database, end_group, prefect_on, server
from tests.recovery.test_kills import whole
from tests.servers import free_port

pytestmark = pytest.mark.recovery
AWAY_SECONDS = 5.0
"""For so long a server is away."""
REACHED_SECONDS = 300.0


def reached(parts: Parts, night: subprocess.Popen[bytes], stage: str) -> None:
    """Wait until a night works at a stage."""
    home, ends = parts.root / "stages" / "mine" / stage, time.monotonic() + REACHED_SECONDS
    while not any(home.glob("*")):
        assert night.poll() is None, parts.said()
        assert time.monotonic() < ends, parts.said()
        time.sleep(0.05)


@contextmanager
def asleep(parts: Parts, night: subprocess.Popen[bytes]) -> Iterator[None]:
    """A night that sleeps while the block runs: it is at work when it begins, and no further when it ends."""
    night.send_signal(signal.SIGSTOP)
    try:
        assert night.poll() is None, parts.said()
        yield
    finally:
        night.send_signal(signal.SIGCONT)


class Restarted:
    """A server that is killed and brought back at the same port.

    Args:
        stack: ends it.
        start: starts it, as a context.
    """

    def __init__(self, stack: ExitStack, start: Callable[[], object]) -> None:
        self._stack, self._start = stack, start
        self.process = stack.enter_context(start())  # type: ignore[arg-type]

    def again(self, parts: Parts, night: subprocess.Popen[bytes]) -> None:
        """Kill it with all that it started, in the middle of a night, and start it again a little later."""
        with asleep(parts, night):
            end_group(self.process)
        time.sleep(AWAY_SECONDS)
        self.process = self._stack.enter_context(self._start())  # type: ignore[arg-type]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


def mlflow_server(stack: ExitStack, parts: Parts) -> Restarted:
    """MLflow's server on the recommender's database and store, which its nights use from now on."""
    port, uri = free_port(), parts.settings["NIGHTLOOM_MLFLOW_URI"]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", uri, "--artifacts-destination", f"s3://{parts.bucket}/mine/artifacts"]
    parts.settings["NIGHTLOOM_MLFLOW_URI"] = f"http://127.0.0.1:{port}"
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return Restarted(stack, lambda: server(command, port, "/health", parts.home / "mlflow.log", settings))


def prefect_server(stack: ExitStack, parts: Parts) -> Restarted:
    """A Prefect server on a database of its own, which the recommender's nights use from now on."""
    port, folder = free_port(), parts.home / "prefect-server"
    folder.mkdir()
    address = database(parts.postgres, f"prefect-{parts.bucket}")
    parts.settings["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    return Restarted(stack, lambda: prefect_on(address, folder, port))


@pytest.mark.parametrize("stage", ["prepare", "fine_tune", "promote"])
@pytest.mark.parametrize(("one", "survives"), [(mlflow_server, True), (prefect_server, False)], ids=["MLflow", "Prefect"])
def test_a_server_is_killed_and_comes_back(
    maker: Maker, undisturbed: Parts, stack: ExitStack, one: Callable[[ExitStack, Parts], Restarted], survives: bool, stage: str
) -> None:
    """Without MLflow's server the night waits. Without Prefect's it may end, and the next one goes on."""
    parts = maker()
    its = one(stack, parts)
    night = parts.start()
    reached(parts, night, stage)
    its.again(parts, night)
    assert night.wait(400) in ((0,) if survives else (0, 1)), parts.said()
    if not survives:
        parts.night()
    whole(parts, undisturbed)


@pytest.mark.parametrize("stage", ["prepare", "fine_tune", "promote"])
@pytest.mark.parametrize("by", ["itself", "a server"])
def test_the_database_is_restarted(maker: Maker, undisturbed: Parts, stack: ExitStack, stage: str, by: str) -> None:
    """With MLflow's tables: the night asks the database itself, or MLflow's server does. Prefect's tables are in it, too."""
    parts = maker()
    if by == "a server":
        mlflow_server(stack, parts)
    night = parts.start()
    reached(parts, night, stage)
    with asleep(parts, night):
        parts.postgres.stop()
    time.sleep(AWAY_SECONDS)
    parts.postgres.start()
    assert night.wait(400) in (0, 1), parts.said()  # a query that is cut off in its middle may end it, and says what to do
    parts.night()
    whole(parts, undisturbed)


def test_two_nights_at_once_of_two_machines(maker: Maker, undisturbed: Parts) -> None:
    """Both end well, and both made the same. The second is promoted over the first, or the first alone where both were judged before."""
    parts = maker()
    other = Parts(parts.home, parts.settings | {"NIGHTLOOM_ROOT": str(parts.home / "other")}, parts.postgres, parts.bucket)
    both = [parts.start(), other.start()]
    assert [one.wait(500) for one in both] == [0, 0], parts.said()
    for one in (parts, other):
        assert {**one.results(), "reasons": None} == {**undisturbed.results(), "reasons": None}
        one.nothing_runs()
        assert one.half_files() == []
    registered = parts.registered()
    said = {one.report()["versions"]["champion"] for one in (parts, other)}
    assert registered["aliases"]["champion"] == max(said), "what serves is what the last of them said"
    assert said <= set(registered["versions"])
    assert registered["running"] == 0


def test_two_nights_at_once_of_one_machine(maker: Maker, undisturbed: Parts) -> None:
    """One makes the stages. The other is told so and ends, or comes late enough to find them."""
    parts = maker()
    codes = [one.wait(500) for one in (parts.start(), parts.start())]
    assert set(codes) <= {0, 2}, parts.said()
    assert 0 in codes, parts.said()
    parts.night()
    assert {**parts.results(), "reasons": None} == {**undisturbed.results(), "reasons": None}
    assert parts.half_files() == []
    parts.nothing_runs()


def test_trim_beside_a_night(maker: Maker, undisturbed: Parts) -> None:
    """On the same machine it refuses. On another one it deletes nothing that the night needs."""
    parts = maker()
    night = parts.start()
    reached(parts, night, "prepare")

    def trim(root: Path) -> subprocess.CompletedProcess[str]:
        root.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "nightloom.cli", "trim", "--keep", "1", "--root", str(root)]
        env = parts.environment | {"NIGHTLOOM_ROOT": str(root)}
        return subprocess.run(command, cwd=parts.home, env=env, capture_output=True, text=True, timeout=300, check=False)

    with asleep(parts, night):
        refused, elsewhere = trim(parts.root), trim(parts.home / "elsewhere")
    assert night.wait(400) == 0, parts.said()
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert "at work under" in refused.stderr
    assert elsewhere.returncode == 0, elsewhere.stderr
    whole(parts, undisturbed)
    parts.forget_disk()
    parts.night()
    assert "nothing changed" in parts.said()
    assert os.listdir(parts.root / "nights" / "mine")
