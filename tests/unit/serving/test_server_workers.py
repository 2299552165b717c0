"""Workers end when they are told to, and when nobody is there to tell them."""

from __future__ import annotations

import os
import signal
import socket
from multiprocessing import get_context
from multiprocessing.context import SpawnProcess
from pathlib import Path

import psutil
import pytest

from benchmarks.service_process import running
from nightloom.core.errors import InputError
from nightloom.promotion.registry import Registry
from nightloom.serving.run import Place, serve
from nightloom.serving.server import workers
from nightloom.serving.server.sockets import bound, claim
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


def test_workers_that_end_before_they_answer_follow_each_other_more_and_more_slowly() -> None:
    context, started = get_context("spawn"), list[SpawnProcess]()

    def start() -> workers.Started:
        started.append(context.Process(target=os._exit, args=(1,)))
        started[-1].start()
        return started[-1], context.Event()

    def pause() -> float:
        started[-1].join(SECONDS)
        many, began = len(started), now[0]
        seat.look(now[0])
        while len(started) == many:
            now[0] += workers.AGAIN_SECONDS
            seat.look(now[0])
        return now[0] - began

    now, seat = [0.0], workers.Seat(start)
    assert [pause() for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    seat.serving.set()
    assert [pause() for _ in range(2)] == [0.5, 1]


def test_a_service_that_can_not_start_ends_and_says_why(home: Path, made: Path) -> None:
    name_champion(home, made.parent / "nothing")
    with pytest.raises(RuntimeError, match="the service could not start"), running(home):
        pass
    assert (home / CHAMPION).exists()


def test_a_port_is_one_services_before_its_workers_listen_and_between_them(tmp_path: Path) -> None:
    root = tmp_path / "mlruns"
    with claim("127.0.0.1", 0) as claimed:
        port = int(claimed.getsockname()[1])

        def serve_there() -> None:
            with pytest.raises(InputError, match=f"--port {port}: it is taken"):
                serve("shop", root, lambda: Registry(root), Place(port=port))

        serve_there()
        with bound("127.0.0.1", port) as one, bound("127.0.0.1", port) as two:
            serve_there()
            one.listen()
            two.listen()
            serve_there()
        serve_there()
    assert not list(tmp_path.iterdir())
    claim("127.0.0.1", port).close()


def test_what_is_left_of_another_programs_connections_does_not_keep_a_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = int(other.getsockname()[1])
        with socket.create_connection(("127.0.0.1", port)) as client:
            other.accept()[0].close()  # who closes first waits for late packets
            assert not client.recv(1)
        with pytest.raises(InputError, match="it is taken"):
            claim("127.0.0.1", port)
    with claim("127.0.0.1", port), bound("127.0.0.1", port) as worker:
        worker.listen()
