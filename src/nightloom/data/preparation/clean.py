"""Cleaning of events: duplicates, robots, repeats and noise. Every removed event has a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nightloom.data.preparation.labels import is_positive
from nightloom.data.tables.coded import codes_of, is_coded, spelt_column

if TYPE_CHECKING:
    from nightloom.config import PrepareConfig

IntArray = NDArray[np.int64]

DUPLICATE = "duplicate: the same user, item, time and event"
OUTLIER = "outlier: the user has a day over max_user_events_per_day"
REPEAT = "repeat: another event of this user on this item is kept"
FEW_USER_EVENTS = "noise: the user has fewer than min_user_events"
FEW_ITEM_EVENTS = "noise: the item has fewer than min_item_events"
REASONS = (DUPLICATE, OUTLIER, REPEAT, FEW_USER_EVENTS, FEW_ITEM_EVENTS)
"""Reasons for which an event is removed, in the order in which they are tried."""

DAY_MS = 86_400_000


def event_times(events: pd.DataFrame) -> NDArray[np.int64]:
    """When each event happened: milliseconds since 1970 UTC, or the `order` column where there are no timestamps."""
    if "timestamp" in events:
        return events["timestamp"].to_numpy(dtype="datetime64[ms]").view(np.int64)
    return events["order"].to_numpy(dtype=np.int64)


def clean(events: pd.DataFrame, config: PrepareConfig) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Remove duplicates, robots, repeats (unless `keep_repeats`) and noise, in that order.

    Of a user's events on an item the first is kept, and the first positive one. So a view does not replace the purchase after it. The
    two noise rules affect each other, so they alternate until neither removes anything.

    Args:
        events: canonical events, their text coded or spelt out.
        config: limits; see `PrepareConfig`.

    Returns:
        The events that stay, in their order, and those removed, with one of `REASONS` in column `reason`, coded where the events are.

    Raises:
        InputError: `positive_min_value` needs a `value` column that is not there.
    """
    users, items = codes_of(events["user_id"]), codes_of(events["item_id"])
    times = event_times(events)
    verdict = np.full(len(events), -1, dtype=np.int8)

    def remove(rows: NDArray[np.bool_], reason: str) -> bool:
        rows = rows & (verdict < 0)
        verdict[rows] = REASONS.index(reason)
        return bool(rows.any())

    order = by_user(users, times)
    remove(_duplicates(order, users, items, times, codes_of(events["event"])), DUPLICATE)
    if "timestamp" in events:
        remove(_robots(order[verdict[order] < 0], users, times // DAY_MS, config.max_user_events_per_day), OUTLIER)
    if not config.keep_repeats:
        remove(_repeats(order[verdict[order] < 0], users, items, is_positive(events, config)), REPEAT)
    del order
    removed_any = True
    while removed_any:
        few_user = remove(_rare(users, verdict < 0, config.min_user_events), FEW_USER_EVENTS)
        few_item = remove(_rare(items, verdict < 0, config.min_item_events), FEW_ITEM_EVENTS)
        removed_any = few_user or few_item
    gone = np.flatnonzero(verdict >= 0)
    removed = events.iloc[gone].reset_index(drop=True)
    reason = pd.Series(pd.Categorical.from_codes(verdict[gone], pd.Index(REASONS, dtype="str")))
    removed = removed.assign(reason=reason if is_coded(events["user_id"]) else spelt_column(reason))
    return events.iloc[np.flatnonzero(verdict < 0)].reset_index(drop=True), removed


def by_user(users: NDArray[np.integer], times: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows, sorted by user, then time, then row: int64 [rows]."""
    order = np.argsort(times, kind="stable")
    return order[np.argsort(users[order], kind="stable")]


def _changes(*sorted_columns: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Where any of some columns differs from the row before; true in the first row."""
    new = np.ones(len(sorted_columns[0]), dtype=bool)
    new[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in sorted_columns])
    return new


def _duplicates(order: IntArray, users: NDArray[Any], items: NDArray[Any], times: IntArray, names: NDArray[Any]) -> NDArray[np.bool_]:
    """Rows that are equal to one before them. Only what a user does at one time can be, so few rows are compared."""
    found = np.zeros(len(order), dtype=bool)
    new = _changes(users[order], times[order])
    together = ~new
    together[:-1] |= ~new[1:]
    rows = np.sort(order[together])
    codes = pd.DataFrame({"user": users[rows], "item": items[rows], "time": times[rows], "event": names[rows]})
    found[rows] = codes.duplicated().to_numpy()
    return found


def _robots(order: IntArray, users: NDArray[Any], days: IntArray, limit: int) -> NDArray[np.bool_]:
    """Events of users with more than `limit` events on some day; `order` has the rows that count, by user and time."""
    starts = np.flatnonzero(_changes(users[order], days[order])) if len(order) else np.zeros(0, dtype=np.int64)
    busy = np.zeros(int(users.max(initial=-1)) + 2, dtype=bool)  # a place more, for rows without a user
    busy[users[order[starts[np.diff(starts, append=len(order)) > limit]]]] = True
    return busy[users]


def _repeats(order: IntArray, users: NDArray[Any], items: NDArray[Any], good: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Events of each user and item, except the first (by time, then row) and the first positive one.

    Whether an event stays thus depends on earlier events alone. If a later purchase removed a view, its absence from the history would
    leak the purchase.

    Args:
        order: the rows that count, by user and time.
        users: integers [rows].
        items: integers [rows].
        good: bool [rows], whether the event is positive.
    """
    pairs = users[order].astype(np.int64) * (items.max(initial=-1) + 2) + items[order]
    repeats = np.zeros(len(users), dtype=bool)
    repeats[order[_again(pairs)]] = True
    positives = good[order]
    repeats[order[positives][~_again(pairs[positives])]] = False
    return repeats


def _again(keys: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each key has come before."""
    order = np.argsort(keys, kind="stable")
    again = np.empty(len(keys), dtype=bool)
    again[order] = ~_changes(keys[order]) if len(keys) else True
    return again


def _rare(codes: NDArray[np.intp], alive: NDArray[np.bool_], least: int) -> NDArray[np.bool_]:
    """Events whose code has fewer than `least` remaining events."""
    counts = np.bincount(codes[alive], minlength=codes.max(initial=-1) + 1)
    return (counts < least)[codes]
