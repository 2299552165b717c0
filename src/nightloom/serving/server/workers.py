"""Starting the workers, replacing those that end by themselves, and ending them all."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess

from nightloom.core.errors import NightloomError
from nightloom.serving.server.sockets import connections
from nightloom.serving.settings import Settings

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""What the linear algebra libraries under numpy read when they are loaded."""
LOOK_SECONDS = 0.1
"""How soon it is seen that the service is to end."""
AGAIN_SECONDS = 0.5
"""Pause before another worker takes the place of one that has ended, which may end as soon."""
KILL_SECONDS = 30.0
"""How long workers have to answer what they have taken, and to write."""
STARTUP_FAILURE = 3
"""uvicorn's exit code of a worker that could not open its model."""
log = logging.getLogger("nightloom.serving")


def listen(settings: Settings, host: str, port: int, workers: int) -> None:
    """Start the workers, and have them answer until the process is told to end.

    Args:
        settings: of the workers.
        host: address to listen at.
        port: there, which the caller has claimed.
        workers: how many processes answer.

    Raises:
        NightloomError: no worker could start.
    """
    one_thread_each()
    settings = replace(settings, connections=connections())
    context = multiprocessing.get_context("spawn")  # a fork would hold all that this process has imported
    serving = context.Event()

    def start() -> SpawnProcess:
        process = context.Process(target=_work, args=(settings, host, port, serving))
        process.start()
        return process

    told = list[int]()
    former = {number: signal.signal(number, lambda number, _: told.append(number)) for number in (signal.SIGTERM, signal.SIGINT)}
    running = list[SpawnProcess]()
    try:
        running += [start() for _ in range(workers)]
        while not told:
            wait([one.sentinel for one in running], LOOK_SECONDS)
            for place, one in enumerate(running):
                if one.exitcode is None or told:
                    continue
                if one.exitcode == STARTUP_FAILURE and not serving.is_set():
                    raise NightloomError("the service could not start; the lines above say why")
                log.error("worker %s has ended by itself, exit code %s; another one takes its place", one.pid, one.exitcode)
                time.sleep(AGAIN_SECONDS)
                running[place] = start()
    finally:
        _end(running)
        for number, handler in former.items():
            signal.signal(number, handler)


def one_thread_each() -> None:
    """Have each worker that starts from now on calculate with one thread, unless the environment says otherwise.

    A worker answers one request after the other, in fractions of a millisecond. Threads of a linear algebra library that wait for work in
    a loop cost five times that, and take the cores from the other workers.
    """
    for name in THREADS:
        os.environ.setdefault(name, "1")


def _work(*given: object) -> None:
    """A worker's process; this one needs no web framework."""
    from nightloom.serving.server.worker import work

    work(*given)  # type: ignore[arg-type]


def _end(running: Sequence[SpawnProcess]) -> None:
    """Tell workers to end, and kill those that do not."""
    for one in running:
        one.terminate()
    ends = time.monotonic() + KILL_SECONDS
    for one in running:
        one.join(max(ends - time.monotonic(), 0))
        if one.exitcode is None:
            log.error("worker %s did not end within %g seconds, and is killed", one.pid, KILL_SECONDS)
            one.kill()
            one.join()
