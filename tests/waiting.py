"""Waiting in tests for what another thread, process or server is about to do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

HANGS_SECONDS = 300.0
"""Whoever waits for longer has met a hang. It is no measure of speed: machines are busy, and servers stand still for a minute."""


def until(found: Callable[[], T], pause: float = 0.02, said: Callable[[], object] = lambda: "") -> T:
    """What is found, once it is true.

    Args:
        found: called again and again.
        pause: seconds between two calls.
        said: what an error should say besides: a log, or what was found instead.

    Raises:
        AssertionError: not within `HANGS_SECONDS`.
    """
    ends = time.monotonic() + HANGS_SECONDS
    while not (now := found()):
        assert time.monotonic() < ends, f"not within {HANGS_SECONDS:.0f} s. {said()}"
        time.sleep(pause)
    return now
