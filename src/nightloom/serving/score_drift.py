"""Whether the service scores as it did for the people whom the champion was trained on: a shift says that they or the items changed.

Compared is the score of the first item of a list, asked for without filters, words or rules, by users of whom something is known.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nightloom.core.divergence import psi
from nightloom.serving.live import LiveModel

PEOPLE = 400
"""Users of the snapshot who are asked about for comparison."""
PARTS = 8
"""Ranges of scores, each with as many of these users."""
LATEST = 4_000
"""Lists that are compared."""
ENOUGH = 400
"""Fewer lists say nothing: chance alone would make them differ."""


class ScoreDrift:
    """Compares the best scores of lists by day with those of the snapshot's users.

    Args:
        model: the champion.
    """

    def __init__(self, model: LiveModel) -> None:
        self._model = model
        self._left: Iterator[str] = iter(model.view.some_users(PEOPLE))
        self._before: list[float] = []
        self._bounds: NDArray[np.float64] | None = None
        self._now: deque[float] = deque(maxlen=LATEST)

    def tick(self) -> None:
        """Ask about one more of the snapshot's users, until all have been: their histories are read anew, for which requests wait."""
        if self._bounds is not None:
            return
        user = next(self._left, None)
        if user is None:
            self._bounds = np.quantile(self._before, np.arange(1, PARTS) / PARTS) if len(self._before) >= PARTS else np.zeros(0)
            return
        history, exclude_seen = self._model.trained_on(user), self._model.champion.exclude_seen
        if history.history and len(scores := self._model.engine.recommend(history, 1, exclude_seen=exclude_seen)[1]):
            self._before.append(float(scores[0]))

    def count(self, score: float, *, exclude_seen: bool) -> None:
        """Take the first item's score of a list, which is compared where it leaves out what the champion does."""
        if exclude_seen == self._model.champion.exclude_seen:
            self._now.append(score)

    def gauges(self) -> dict[str, float]:
        """The population stability index, once enough is known; how many lists it compares."""
        found = {"scores_compared": float(len(self._now))}
        if self._bounds is not None and len(self._bounds) and len(self._now) >= ENOUGH:
            before, now = (
                np.bincount(np.searchsorted(self._bounds, np.array(values)), minlength=PARTS) for values in (self._before, self._now)
            )
            found["scores_psi"] = psi(before, now)
        return found
