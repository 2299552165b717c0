"""Several trainings at once: each is followed by a thread of this process, and works in processes of its own or as a job of a cluster."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from queue import SimpleQueue
from threading import Event
from typing import Generic, Self, TypeVar

Found = TypeVar("Found")


class Halted(Exception):
    """A training that ends because those at its side are not gone on with."""


class AtOnce(Generic[Found]):
    """Trainings that run side by side; leaving the block ends those that still do.

    What they tell is heard in the thread that asks for their ends.

    Args:
        most: that may run at once.

    Attributes:
        most: as given; that many share a machine's cores.
        under_way: how many have begun and were not yet given by `ended`.
    """

    def __init__(self, most: int) -> None:
        self.most, self.under_way = most, 0
        self._halt = Event()
        self._said: SimpleQueue[Callable[[], object] | Future[Found]] = SimpleQueue()
        self._threads = ThreadPoolExecutor(most, "training")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._halt.set()
        self._threads.shutdown(cancel_futures=True)

    def start(self, train: Callable[[], Found]) -> Future[Found]:
        """Begin a training in a thread of its own."""
        self.under_way += 1
        begun = self._threads.submit(copy_context().run, train)  # what it logs belongs to the run that asks
        begun.add_done_callback(self._said.put)
        return begun

    def tell(self, say: Callable[[], object]) -> None:
        """Called by a training: have something said in the other thread."""
        self._said.put(say)

    def check(self) -> None:
        """Called by a training again and again.

        Raises:
            Halted: the others are not gone on with.
        """
        if self._halt.is_set():
            raise Halted

    def ended(self) -> Future[Found]:
        """Wait for the next that ends, and say what is told until then."""
        while not isinstance(said := self._said.get(), Future):
            said()
        self.under_way -= 1
        return said
