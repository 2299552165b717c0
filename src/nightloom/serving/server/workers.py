"""Starting the workers, replacing those that end by themselves, and ending them all."""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Event

from nightloom.core.errors import NightloomError
from nightloom.serving.server.sockets import connections
from nightloom.serving.settings import Settings

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""What the linear algebra libraries under numpy read when they are loaded."""
LOOK_SECONDS = 0.1
"""How soon it is seen that the service is to end."""
AGAIN_SECONDS, LONGEST_SECONDS = 0.5, 30.0
"""Pause before another worker takes the place of one that has ended; the longest, where one after the other ends before it answers."""
KILL_SECONDS = 30.0
"""How long workers have to answer what they have taken, and to write."""
STARTUP_FAILURE = 3
"""uvicorn's exit code of a worker that could not open its model."""
Started = tuple[SpawnProcess, Event]
"""A worker, and what it sets once it answers."""
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

    def start() -> Started:
        serving = context.Event()
        process = context.Process(target=_work, args=(settings, host, port, serving))
        process.start()
        return process, serving

    told, seats, served = list[int](), list[Seat](), False
    former = {number: signal.signal(number, lambda number, _: told.append(number)) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        while len(seats) < workers:
            seats.append(Seat(start))
        while not told:
            wait([one.process.sentinel for one in seats if one.process.exitcode is None], LOOK_SECONDS)
            served = served or any(one.serving.is_set() for one in seats)
            for one in seats:
                if one.process.exitcode == STARTUP_FAILURE and not served:
                    raise NightloomError("the service could not start; the lines above say why")
                if not told:
                    one.look(time.monotonic())
    finally:
        _end([one.process for one in seats])
        for number, handler in former.items():
            signal.signal(number, handler)


class Seat:
    """A worker's place, which another one takes when that one has ended.

    Args:
        start: starts a worker.

    Attributes:
        process: the worker.
        serving: is set once it answers.
    """

    def __init__(self, start: Callable[[], Started]) -> None:
        self._start = start
        self._pause, self._again = AGAIN_SECONDS, math.inf
        self.process, self.serving = start()

    def look(self, now: float) -> None:
        """See whether the worker has ended, and start another one when it is time.

        Args:
            now: seconds of a clock.
        """
        if self.process.exitcode is None:
            return
        if self._again == math.inf:
            if self.serving.is_set():
                self._pause = AGAIN_SECONDS
            words = "worker %s has ended by itself, exit code %s; another one takes its place in %g seconds"
            log.error(words, self.process.pid, self.process.exitcode, self._pause)
            self._again = now + self._pause
            self._pause = min(2 * self._pause, LONGEST_SECONDS)
        elif now >= self._again:
            self._again = math.inf
            self.process, self.serving = self._start()


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
