"""Events of each item by time, which every event of the day joins: `nightloom.models.heads.item_counters` as the service keeps it.

An item's times are a row of a pool, ascending; a row that is full moves to the end of the pool with twice its room. Most events are
the latest of their item, so that joining costs little.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nightloom.models.heads.item_counters import DAY, NEVER, SPAN, midnight
from nightloom.serving.items.growing import Growing, more_room, wider
from nightloom.serving.model.jit import kernel

IntArray = NDArray[np.int64]


class TimeRows(NamedTuple):
    """The counters as kernels read them; item i's times are `times[start[i]:start[i] + length[i]]`.

    Attributes:
        start: int64 [items].
        length: int64 [items].
        times: int64, seconds since 1970.
        before: int64 [items], events too old to be kept.
        before_last: int64 [items], the latest of those; NEVER without one.
        first: int64 [items], the first event of all; NEVER without one.
        all_times: int64 [kept events], ascending.
    """

    start: IntArray
    length: IntArray
    times: IntArray
    before: IntArray
    before_last: IntArray
    first: IntArray
    all_times: IntArray


class LiveCounters:
    """Events by item and time. As in `ItemCounters` every question counts only events strictly before the given time.

    Args:
        arrays: of an `ItemCounters`.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        start, keys = int(arrays["start"].item()), arrays["keys"]
        items, times = np.divmod(keys, SPAN)
        edges = np.searchsorted(items, np.arange(len(arrays["first"]) + 1)).astype(np.int64)
        lengths = np.diff(edges)
        self._start, self._length, self._room = Growing(edges[:-1]), Growing(lengths), Growing(lengths)
        self._used = np.array([len(keys)], dtype=np.int64)
        self._times = times + start
        self._before, self._before_last = Growing(arrays["before"]), Growing(arrays["before_last"])
        self._first = Growing(arrays["first"])
        self._all = Growing(arrays["times"] + start)

    @property
    def rows(self) -> TimeRows:
        """As kernels read them."""
        each = (self._start.array, self._length.array, self._times, self._before.array, self._before_last.array)
        return TimeRows(*each, self._first.array, self._all.array)

    @property
    def start(self) -> int:
        """The earliest event that is kept, in seconds since 1970; 0 without one."""
        return int(self._all.array[0]) if self._all.n else 0

    @property
    def now(self) -> int:
        """Just after the latest event of all: the time of a query without one."""
        return int(self._all.array[-1]) + 1 if self._all.n else 0

    def append(self) -> None:
        """Take an item without events."""
        for one, value in ((self._start, self._used[0]), (self._length, 0), (self._room, 0)):
            one.append(value)
        for one, value in ((self._before, 0), (self._before_last, NEVER), (self._first, NEVER)):
            one.append(value)

    def add(self, item: int, time: int) -> None:
        """Count an event."""
        while not _insert(self._start.array, self._length.array, self._room.array, self._used, self._times, item, time):
            self._times = wider(self._times, more_room(len(self._times)) + 2 * int(self._length.array[item]))
        first = self._first.array
        first[item] = time if first[item] == NEVER else min(int(first[item]), time)
        place = int(np.searchsorted(self._all.array, time, "right"))
        self._all.append(time)
        moved = self._all.array
        moved[place + 1 :] = moved[place:-1].copy()
        moved[place] = time

    def take_back(self, item: int, time: int) -> None:
        """Forget an event that was counted. One too old to be kept by itself leaves the count of those."""
        first, length = self._start.array[item], self._length.array
        mine = self._times[first : first + length[item]]
        place = int(np.searchsorted(mine, time))
        if place == len(mine) or mine[place] != time:  # what the night counted lies at midnight
            time = int(midnight(np.int64(time)))
            place = int(np.searchsorted(mine, time))
        if place == len(mine) or mine[place] != time:
            self._before.array[item] = max(int(self._before.array[item]) - 1, 0)
            return
        mine[place:-1] = mine[place + 1 :].copy()
        length[item] -= 1
        if not self._before.array[item]:
            self._first.array[item] = mine[0] if length[item] else NEVER
        self._all.remove(int(np.searchsorted(self._all.array, time)))

    def until(self, items: IntArray, when: IntArray) -> IntArray:
        """Events of items before some times, int64 of the shape of both."""
        return np.array([until(self.rows, *pair) for pair in zip(items.tolist(), when.tolist(), strict=True)], dtype=np.int64)

    def last(self, items: IntArray, when: IntArray) -> IntArray:
        """The latest event of items before some times; NEVER where there is none."""
        return np.array([last(self.rows, *pair) for pair in zip(items.tolist(), when.tolist(), strict=True)], dtype=np.int64)


@kernel
def _insert(start: Any, length: Any, room: Any, used: Any, times: Any, item: Any, time: Any) -> Any:
    """Put a time into an item's row; false where the pool has no room for a longer row."""
    first, many = start[item], length[item]
    if many == room[item]:
        wanted = max(2 * many, 8)
        if used[0] + wanted > len(times):
            return False
        times[used[0] : used[0] + many] = times[first : first + many]
        start[item], room[item] = used[0], wanted
        first = used[0]
        used[0] += wanted
    at = first + many
    while at > first and times[at - 1] > time:
        times[at] = times[at - 1]
        at -= 1
    times[at] = time
    length[item] = many + 1
    return True


@kernel
def earlier(times: Any, first: Any, many: Any, when: Any) -> Any:
    """How many of `times[first:first + many]`, ascending, are before a time."""
    low, high = first, first + many
    while low < high:
        middle = (low + high) // 2
        if times[middle] < when:
            low = middle + 1
        else:
            high = middle
    return low - first


@kernel
def until(rows: Any, item: Any, when: Any) -> Any:
    """Events of an item before a time."""
    return rows.before[item] + earlier(rows.times, rows.start[item], rows.length[item], when)


@kernel
def last(rows: Any, item: Any, when: Any) -> Any:
    """The latest event of an item before a time; NEVER where there is none."""
    many = earlier(rows.times, rows.start[item], rows.length[item], when)
    if many:
        return rows.times[rows.start[item] + many - 1]
    return rows.before_last[item] if rows.before_last[item] < when else np.int64(-1)


@kernel
def within(rows: Any, item: Any, when: Any, days: Any) -> Any:
    """Events of an item in the last days before a time."""
    first, many = rows.start[item], rows.length[item]
    return earlier(rows.times, first, many, when) - earlier(rows.times, first, many, when - days * DAY)


@kernel
def all_within(rows: Any, when: Any, days: Any) -> Any:
    """Events of all items in the last days before a time."""
    many = len(rows.all_times)
    return earlier(rows.all_times, 0, many, when) - earlier(rows.all_times, 0, many, when - days * DAY)
