"""How many requests a worker takes at a time, so that those it takes are answered in time.

A crowd that comes at once is taken, and soon over. Where the crowd stays, requests come faster than they can be answered: each that is
taken then makes all wait that come after it, so few are. (CoDel tells the two apart alike, by the shortest wait of the last moments.)
While another version is opened beside the requests, the processor has other work for a moment: more may wait then.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator

LONGEST_WAIT = 0.005
"""Seconds that the last of the requests under way waits for those before it, where a crowd stays."""
PATIENCE = 8
"""So many times as long they may wait while another version is opened: what this takes of the processor is soon free again."""
LINGER = 1.0
"""Seconds that they may go on to, once it is open: until the crowd that has come meanwhile is answered."""
FEWEST = 8
"""Requests that are taken at a time, however slow they are."""
LATE = 5
"""So many times as long a request may have waited when it is its turn: for the system, or for a worker that stood still, too."""
STANDING = 0.2
"""Seconds after which a crowd is one that stays."""
CALM = 1
"""Requests at a time that are no crowd: short of too much load a worker is often asked one thing at a time, and under too much hardly ever.
The few that are taken of a crowd must not look like calm, else many are taken again."""
CALM_TIMES = 8
"""So often a worker is asked one thing, and turns nobody away meanwhile, until a crowd has gone. Where who asks stands still for a moment,
or a program between does, a worker has nothing to do once or twice, and all that came meanwhile comes then."""
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
        self._last, self._refused, self._calm = 0.0, 0.0, time.perf_counter()
        self._highest = self._calm_times = 0
        self._patient_until = 0.0

    @contextlib.contextmanager
    def patient(self) -> Iterator[None]:
        """Have requests wait a little longer, rather than turn them away, until a moment after the block ends."""
        self._patient_until = math.inf
        try:
            yield
        finally:
            self._patient_until = time.perf_counter() + LINGER

    @property
    def crowded(self) -> bool:
        """Whether a crowd stays, so that what is not a request may wait."""
        moment = time.perf_counter()
        return moment - self._last < STANDING <= moment - self._calm

    @property
    def full(self) -> bool:
        """Whether one more request would have to wait too long."""
        if self.now < FEWEST:
            return False
        moment = time.perf_counter()
        if moment - self._calm < STANDING:
            return self.now >= self.most
        return self.now >= min(max(round(self._longest(moment) / self.seconds), FEWEST), self.most)

    def late(self, age: Callable[[], float]) -> bool:
        """Whether a request that was taken is not worth an answer any more: others have come after it, and not all of them were taken.

        Args:
            age: seconds since it came; asked only where a crowd stays.
        """
        moment = time.perf_counter()
        if moment - self._calm < STANDING or moment - self._refused >= STANDING:  # a few are no crowd, however late they are
            return False
        return age() > LATE * max(self._longest(moment), FEWEST * self.seconds)

    def _longest(self, moment: float) -> float:
        return LONGEST_WAIT * (PATIENCE if moment < self._patient_until else 1)

    def begin(self) -> None:
        """A request is taken."""
        if not self.now:
            moment = time.perf_counter()
            if moment - self._last >= STANDING:  # nobody has asked for so long
                self._calm = moment
            self._last, self._highest = moment, 0
        self.now += 1
        self._highest = max(self._highest, self.now)

    def end(self, *, answered: bool = True) -> None:
        """A request is answered, or turned away after all. One long pause, such as of a change of versions, counts little."""
        moment = time.perf_counter()
        if answered:  # the other says nothing of how long answers take
            took = min(moment - self._last, 4 * self.seconds)
            self.seconds += SMOOTHING * (took - self.seconds)
        self._last = moment
        self.now -= 1
        if not self.now and self._highest <= CALM:
            self._calm_times += 1
            if self._calm_times >= CALM_TIMES:
                self._calm = moment

    def refuse(self) -> None:
        """A request is turned away."""
        self._refused, self._calm_times = time.perf_counter(), 0
