"""Futures that wait until PostgreSQL has a write, too (`ack: central`)."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from nightloom.serving.store.database import connect
from nightloom.serving.store.errors import CentralUnavailable

Result = TypeVar("Result")

POLL_SECONDS = 0.005
"""How often to look how far the outbox is, while somebody waits."""
WAIT_SECONDS = 10.0
"""How long a write waits for PostgreSQL."""


class Confirmed:
    """Watches how far the outbox of a file is; whichever process carries it notes that in the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reader = connect(path, reads_only=True)
        self._waiting: deque[tuple[int, float, Callable[[BaseException | None], None]]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name=f"store-confirmed {path.name}", daemon=True)
        self._thread.start()

    def after(self, local: Future[Result], number: Callable[[], int]) -> Future[Result]:
        """A future that is done when PostgreSQL has what another future wrote.

        Args:
            local: done when it is on this disk.
            number: gives then the last number of the write.
        """
        outer: Future[Result] = Future()
        outer.set_running_or_notify_cancel()

        def written(done: Future[Result]) -> None:
            if (error := done.exception()) is not None:
                outer.set_exception(error)
                return
            with self._changed:
                self._waiting.append((number(), time.monotonic() + WAIT_SECONDS, lambda failed: _resolve(outer, done.result(), failed)))
                self._changed.notify()

        local.add_done_callback(written)
        return outer

    def close(self) -> None:
        """Tell those who still wait that it is not confirmed, and end."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._reader.close()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
            sent, now = self._reader.execute("SELECT sent FROM state").fetchone()[0], time.monotonic()
            while self._waiting and (self._waiting[0][0] <= sent or now > self._waiting[0][1] or self._closing):
                number, _, resolve = self._waiting.popleft()
                resolve(
                    None
                    if number <= sent
                    else CentralUnavailable(
                        f"{self.path}: PostgreSQL has not confirmed the write in {WAIT_SECONDS:g} s. It is kept here and goes on later."
                    )
                )
            time.sleep(POLL_SECONDS)


def _resolve(outer: Future[Any], result: Any, failed: BaseException | None) -> None:
    if failed is None:
        outer.set_result(result)
    else:
        outer.set_exception(failed)
