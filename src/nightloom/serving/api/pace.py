"""How many requests a worker takes at a time, so that those it takes are answered in time."""

from __future__ import annotations

import time

LONGEST_WAIT = 0.03
"""Seconds that the last of the requests under way waits for those before it."""
FEWEST = 16
"""Requests that are taken at a time, however slow they are."""
SMOOTHING = 0.05
"""What one request says of the pace."""


class Pace:
    """Counts requests under way, and how fast they come to an end.

    Args:
        most: requests that are taken at a time, however fast they are.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.now = 0
        self.seconds = LONGEST_WAIT / most
        """Between the ends of two requests, while others are under way."""
        self._last = 0.0

    @property
    def full(self) -> bool:
        """Whether one more request would have to wait too long."""
        return self.now >= min(max(round(LONGEST_WAIT / self.seconds), FEWEST), self.most)

    def begin(self) -> None:
        """A request is taken."""
        if not self.now:
            self._last = time.perf_counter()
        self.now += 1

    def end(self) -> None:
        """A request is answered. One long pause, such as of a change of versions, counts little."""
        moment = time.perf_counter()
        took = min(moment - self._last, 4 * self.seconds)
        self._last = moment
        self.seconds += SMOOTHING * (took - self.seconds)
        self.now -= 1
