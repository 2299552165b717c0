"""Histories are looked at by several threads: kernels and matrix products, most of the work, run without the interpreter's lock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from nightloom.core.cores import cores

One = TypeVar("One")
Found = TypeVar("Found")
MOST = 4
"""Threads; more would wait for the lock."""


def each(function: Callable[[One], Found], of: Iterable[One]) -> Iterator[Found]:
    """What a function says of each, in order; it must not change what the others read."""
    with ThreadPoolExecutor(min(MOST, cores())) as threads:
        yield from threads.map(function, of)
