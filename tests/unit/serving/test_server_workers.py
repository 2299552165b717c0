"""Workers end when they are told to, and when nobody is there to tell them."""

from __future__ import annotations

import signal
from multiprocessing import get_context
from pathlib import Path

import psutil
import pytest

from benchmarks.service_process import running
from nightloom.serving.server import workers
from nightloom.serving.settings import CHAMPION
from tests.service_app import name_champion
from tests.unit.serving.stubborn import stubborn

SECONDS = 30.0


def test_a_worker_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "KILL_SECONDS", 0.1)
    context = get_context("spawn")
    ready = context.Event()
    process = context.Process(target=stubborn, args=(ready,))
    process.start()
    assert ready.wait(SECONDS)
    workers._end([process])
    assert process.exitcode == -signal.SIGKILL


def test_workers_end_with_the_process_that_has_started_them(home: Path) -> None:
    with running(home) as service:
        children = psutil.Process(service.process.pid).children(recursive=True)
        assert children
        service.process.kill()
        _, alive = psutil.wait_procs(children, SECONDS)
    assert not alive


def test_a_service_that_can_not_start_ends_and_says_why(home: Path, made: Path) -> None:
    name_champion(home, made.parent / "nothing")
    with pytest.raises(RuntimeError, match="the service could not start"), running(home):
        pass
    assert (home / CHAMPION).exists()
