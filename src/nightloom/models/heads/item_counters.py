"""Events of each item by time: the source of the re-ranker's causal counters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from nightloom.core.sequences import Histories

IntArray = NDArray[np.int64]
DAY = 86_400
KEPT_DAYS = 60
"""Days before the latest event of which every event is kept, where queries come after all of them."""
NEVER = np.int64(-1)
SPAN = np.int64(1 << 36)
"""Seconds that fit into a key: two thousand years."""


def midnight(times: IntArray | np.int64) -> IntArray:
    """The midnight at or after some times, in seconds since 1970."""
    return np.asarray(-(-times // DAY) * DAY)


@dataclass(frozen=True)
class ItemCounters:
    """Positive events by item and time. Every method counts only events strictly before the given time.

    Where old events are only summed up and some of an item's come after the given time, only its first event is known to come before.

    Attributes:
        start: seconds since 1970 of the earliest event that is kept.
        keys: int64 [kept events], item * SPAN + time - start, ascending.
        times: int64 [kept events], time - start, ascending.
        before: int64 [items], events too old to be kept.
        before_last: int64 [items], the latest of those, in seconds since 1970; NEVER without one.
        first: int64 [items], the first event of all, in seconds since 1970; NEVER without one.
    """

    start: int
    keys: IntArray
    times: IntArray
    before: IntArray
    before_last: IntArray
    first: IntArray

    @classmethod
    def of(cls, known: Histories, n_items: int, days: int | None = None) -> Self:
        """Count the positive events of some histories.

        Args:
            known: the events that are known.
            n_items: size of the catalogue.
            days: keep the events of this many days before the latest one, and of older ones the counts of `before`. None: keep all.
        """
        items, times = known.items[known.positive].astype(np.int64), known.times[known.positive]
        first = np.full(n_items, np.iinfo(np.int64).max)
        np.minimum.at(first, items, times)
        old = times < times.max(initial=0) - days * DAY if days else np.zeros(len(times), dtype=bool)
        latest = np.full(n_items, NEVER)
        np.maximum.at(latest, items[old], times[old])
        start = int(times[~old].min(initial=np.iinfo(np.int64).max)) if len(times) else 0
        kept = times[~old] - start
        return cls(
            start,
            np.sort(items[~old] * SPAN + kept),
            np.sort(kept),
            np.bincount(items[old], minlength=n_items),
            latest,
            np.where(first == np.iinfo(np.int64).max, NEVER, first),
        )

    @property
    def now(self) -> int:
        """Just after the latest event of all, in seconds since 1970: the time of a query without one."""
        return self.start + int(self.times.max(initial=-1)) + 1

    @property
    def kept_days(self) -> int | None:
        """Days of which every event is kept, for newer counters of the same kind; None where nothing was too old."""
        return KEPT_DAYS if self.before.any() else None

    def until(self, items: IntArray, when: IntArray) -> IntArray:
        """Events of items before some times, int64 of the shape of both."""
        old = np.where(self.before_last[items] < when, self.before[items], self.first[items] < when)
        return old + self._place(items, when) - np.searchsorted(self.keys, items * SPAN)

    def within(self, items: IntArray, when: IntArray, days: int) -> IntArray:
        """Those of the last days before `when`."""
        return self._place(items, when) - self._place(items, when - days * DAY)

    def all_within(self, when: IntArray, days: int) -> IntArray:
        """Events of all items in the last days before `when`."""
        return np.searchsorted(self.times, when - self.start) - np.searchsorted(self.times, when - days * DAY - self.start)

    def last(self, items: IntArray, when: IntArray) -> IntArray:
        """Seconds since 1970 of the latest event of items before some times; NEVER where there is none."""
        at = self._place(items, when) - 1
        kept = at >= np.searchsorted(self.keys, items * SPAN)
        found = self.keys[np.maximum(at, 0)] - items * SPAN + self.start if len(self.keys) else np.zeros_like(items)
        old, first = self.before_last[items], self.first[items]
        return np.where(kept, found, np.where(old < when, old, np.where(first < when, first, NEVER)))

    def reindex(self, rows: IntArray, n_items: int) -> ItemCounters:
        """The same over another catalogue; see `Scorer.reindex`."""
        item, time = np.divmod(self.keys, SPAN)
        here = np.flatnonzero(rows >= 0)
        moved = [np.full(n_items, fill, dtype=np.int64) for fill in (0, NEVER, NEVER)]
        for new, old in zip(moved, (self.before, self.before_last, self.first), strict=True):
            new[rows[here]] = old[here]
        kept = rows[item] >= 0
        return ItemCounters(self.start, np.sort(rows[item[kept]] * SPAN + time[kept]), self.times, *moved)

    def by_day(self) -> ItemCounters:
        """The same with every time moved up to the next midnight (UTC), so that none tells when somebody was there.

        Up, not down: no question before an event knows of it then.
        """
        item, time = np.divmod(self.keys, SPAN)
        start = midnight(np.int64(self.start)) if len(self.keys) else np.int64(0)
        kept = midnight(time + self.start) - start
        dates = (np.where(one == NEVER, NEVER, midnight(one)) for one in (self.before_last, self.first))
        return ItemCounters(int(start), np.sort(item * SPAN + kept), np.sort(kept), self.before, *dates)

    def save(self, folder: Path, name: str = "item_counters") -> None:
        """Write `<name>.npz`."""
        np.savez(folder / f"{name}.npz", **{name: getattr(self, name) for name in self.__dataclass_fields__})

    @classmethod
    def load(cls, folder: Path, name: str = "item_counters") -> Self:
        """Read what `save` wrote."""
        with np.load(folder / f"{name}.npz", allow_pickle=False) as arrays:
            content = {name: arrays[name] for name in cls.__dataclass_fields__}
        return cls(**(content | {"start": int(content["start"])}))

    def _place(self, items: IntArray, when: IntArray) -> IntArray:
        """Position in `keys` of the first event of an item that is not before a time."""
        return np.searchsorted(self.keys, items * SPAN + np.clip(when - self.start, 0, SPAN - 1))
