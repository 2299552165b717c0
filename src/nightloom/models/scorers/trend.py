"""Scorer trend: popularity of late; a positive event counts the less the longer ago it is."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nightloom.core.sequences import Histories
from nightloom.models.scorers.popularity import Popularity

DAY = 86_400
EVENTS_AN_ITEM = 2
"""A half-life is the time of so many of the latest events for each item of the catalogue: fewer would not tell items apart."""

OLDEST = 1000.0
"""Half-lives after which an event loses no more weight: of 0 an item would count as one that nobody has acted on."""


class Trend(Popularity):
    """As popularity, but an event of d days before the last day of training counts as 2^(-d / half-life).

    Days are whole, so that no event's time can be read from a score. What comes after training counts as the events of its last day do: a
    service adds its events one by one, nothing has to be counted again as time goes by, and data may end long before they are served.

    Attributes:
        counts: float64 [n_items], weighted.
        day: the last of training, since 1970.
        half_life: in days, at least 1.
    """

    family: ClassVar[str] = "trend"
    settings: ClassVar[tuple[str, ...]] = ("day", "half_life")
    day: int = 0
    half_life: float = 1.0

    def fit(self, train: Histories, n_items: int) -> Self:
        """Count positive events."""
        items, times = train.items[train.positive], train.times[train.positive]
        days, many = times // DAY, EVENTS_AN_ITEM * n_items
        self.day = int(days.max(initial=0))
        first = int(np.partition(days, -many)[-many] if len(days) > many else days.min(initial=self.day))
        self.half_life = float(self.day - first + 1)
        return self._keep(np.bincount(items, weight_of(times, self.day, self.half_life), minlength=n_items))

    def reindex(self, rows: NDArray[np.int64], n_items: int) -> Self:
        """The same over another catalogue; nothing is expected of its new items yet."""
        found = super().reindex(rows, n_items)
        found.day, found.half_life = self.day, self.half_life
        return found

    def save(self, folder: Path) -> None:
        """Write `trend.npz`."""
        np.savez(folder / "trend.npz", counts=self.counts, expected=self.expected, day=self.day, half_life=self.half_life)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        with np.load(folder / "trend.npz", allow_pickle=False) as arrays:
            found = cls()._keep(arrays["counts"], arrays["expected"])
            found.day, found.half_life = int(arrays["day"]), float(arrays["half_life"])
            return found


def weight_of(times: NDArray[np.int64], day: int, half_life: float) -> NDArray[np.float64]:
    """How much an event counts at some times.

    Args:
        times: int64, seconds since 1970.
        day: on which an event counts 1, since 1970.
        half_life: in days.

    Returns:
        float64 of the shape of `times`, above 0 and at most 1.
    """
    found: NDArray[np.float64] = np.exp2(np.clip((times // DAY - day) / half_life, -OLDEST, 0))
    return found
