"""Features of user and item for the label head: counters of strictly earlier events.

The item's counters come from the events that training knows, the user's from the history of the query. Events of the very time of
the query count for neither (see `nightloom.data.preparation.counters`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nightloom.core.ragged import owners
from nightloom.core.sequences import Histories
from nightloom.data.preparation.counters import count
from nightloom.models.heads.item_counters import DAY, NEVER, ItemCounters

FloatArray = NDArray[np.float32]
COUNTERS = tuple(f"{whose} {what}" for whose in ("item", "user") for what in ("events", "rate of positives", "days since the last"))
"""For item and user: log(1 + n), log-odds (positives + 1) / (others + 1), log(1 + days), -1 where there was no event."""
SHOWN, POSITIVE = "label_shown", "label_positive"


@dataclass(frozen=True)
class LabelCounters:
    """All known events of the items, and the positive ones among them.

    Attributes:
        shown: events, positive or not.
        positive: positive events.
    """

    shown: ItemCounters
    positive: ItemCounters

    @classmethod
    def of(cls, known: Histories, n_items: int, days: int | None = None) -> Self:
        """Count some histories; `days` as in `ItemCounters.of`."""
        everything = replace(known, positive=np.ones(len(known.items), dtype=bool))
        return cls(ItemCounters.of(everything, n_items, days), ItemCounters.of(known, n_items, days))

    def of_events(self, histories: Histories) -> FloatArray:
        """Counters for each event of some histories, as they were just before it: float32 [events, COUNTERS]."""
        owner, timed = owners(histories.offsets), bool(histories.times.any())
        past = count(owner, histories.times if timed else np.arange(len(owner)), histories.positive)
        since = np.where(np.isnan(past.since) | (not timed), -1, past.since)
        own = _columns(past.shown, past.clicked, since)
        return np.column_stack([self._items(histories.items.astype(np.int64), histories.times), own])

    def of_pairs(self, histories: Histories, owner: NDArray[np.int64], items: NDArray[np.int64]) -> FloatArray:
        """Counters for pairs of a history and an item at `request_time`: float32 [pairs, COUNTERS].

        Args:
            histories: one for each query; where `request_time` is zero, the item's counters are those of now, after all known events.
            owner: int64 [pairs], rows of `histories`.
            items: int64 [pairs].
        """
        n, when, timed = len(histories), histories.request_time, histories.request_time > 0
        row = owners(histories.offsets)
        known = ~timed[row] | (histories.times < when[row])
        latest = np.full(n, NEVER)
        np.maximum.at(latest, row[known], histories.times[known])
        shown, positive = (np.bincount(row[flags], minlength=n) for flags in (known, known & histories.positive))
        own = _columns(shown, positive, np.where(timed & (latest > 0), when - latest, -1))
        return np.column_stack([self._items(items, np.where(timed, when, self.shown.now)[owner]), own[owner]])

    def reindex(self, rows: NDArray[np.int64], n_items: int) -> LabelCounters:
        """The same over another catalogue; see `Scorer.reindex`."""
        return LabelCounters(self.shown.reindex(rows, n_items), self.positive.reindex(rows, n_items))

    def by_day(self) -> LabelCounters:
        """The same with times moved up to the next midnight; see `ItemCounters.by_day`."""
        return LabelCounters(self.shown.by_day(), self.positive.by_day())

    def save(self, folder: Path) -> None:
        """Write `label_shown.npz` and `label_positive.npz`."""
        self.shown.save(folder, SHOWN)
        self.positive.save(folder, POSITIVE)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        return cls(ItemCounters.load(folder, SHOWN), ItemCounters.load(folder, POSITIVE))

    def _items(self, items: NDArray[np.int64], when: NDArray[np.int64]) -> FloatArray:
        last = self.shown.last(items, when)
        since = np.where((last == NEVER) | (when <= 0), -1, when - last)
        return _columns(self.shown.until(items, when), self.positive.until(items, when), since)


def _columns(shown: NDArray[Any], positive: NDArray[Any], since: NDArray[Any]) -> FloatArray:
    """Counts, and seconds since the last event (-1 without one), as features of like scale, float32 [rows, 3]."""
    days = np.where(since < 0, -1.0, np.log1p(np.maximum(since, 0) / DAY))
    return np.column_stack([np.log1p(shown), np.log((positive + 1) / (shown - positive + 1)), days]).astype(np.float32)
