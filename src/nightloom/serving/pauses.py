"""Pauses in long work that a thread does beside requests.

Python code that runs on keeps the interpreter's lock: each time a request has let it go for a kernel, it waits for it. A thread that
pauses after a millisecond costs a request no more than that.
"""

from __future__ import annotations

import time

WORK = 0.001
"""Seconds of the processor between two pauses."""
SHARE = 4.0
"""A pause is so many times as long as the work before it."""


class Pauses:
    """Call it between small steps of work, always in the same thread: it sleeps where enough was done since the last pause."""

    def __init__(self) -> None:
        self._since: float | None = None

    def __call__(self) -> None:
        """Pause, if it is time."""
        now = time.thread_time()
        if self._since is None:
            self._since = now
        elif (worked := now - self._since) >= WORK:
            time.sleep(SHARE * worked)
            self._since = time.thread_time()


def without_pause() -> None:
    """For work that nobody waits beside."""
