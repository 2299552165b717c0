"""Work for several threads: kernels and matrix products run without the interpreter's lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

One = TypeVar("One")
Found = TypeVar("Found")
MOST = 4
"""Threads; more would wait for the lock."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """Threads that share work."""
    return min(MOST, cores())


def each(function: Callable[[One], Found], of: Iterable[One]) -> Iterator[Found]:
    """What a function says of each, in order; it must not change what the others read."""
    with ThreadPoolExecutor(threads()) as pool:
        yield from pool.map(function, of)
