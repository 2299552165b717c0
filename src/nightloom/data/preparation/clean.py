"""Cleaning of events: duplicates, robots, repeats and noise. Every removed event has a reason."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nightloom.core.counts import added
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
    good = np.zeros(0, dtype=bool) if config.keep_repeats else is_positive(events, config)
    verdict = of_users(users, items, event_times(events), codes_of(events["event"]), good, config, timed="timestamp" in events)
    of_noise([Part(users, items, verdict)], config)
    gone = np.flatnonzero(verdict >= 0)
    removed = events.iloc[gone].reset_index(drop=True)
    removed = removed.assign(reason=reasons_of(verdict[gone], coded=is_coded(events["user_id"])))
    return events.iloc[np.flatnonzero(verdict < 0)].reset_index(drop=True), removed


def reasons_of(verdict: NDArray[np.int8], *, coded: bool) -> pd.Series:
    """The reasons of removed events, in words."""
    reason = pd.Series(pd.Categorical.from_codes(verdict, pd.Index(REASONS, dtype="str")))
    return reason if coded else spelt_column(reason)


def of_users(
    users: NDArray[Any],
    items: NDArray[Any],
    times: IntArray,
    names: NDArray[Any],
    good: NDArray[np.bool_],
    config: PrepareConfig,
    *,
    timed: bool,
) -> NDArray[np.int8]:
    """The verdicts that follow from each user's own events: duplicates, robots and repeats.

    Args:
        users: integers [rows], all events of some users in the order of the source.
        items: integers [rows].
        times: int64 [rows], see `event_times`.
        names: integers [rows], of event names.
        good: bool [rows], whether the event is positive; of no account where repeats are kept.
        config: limits.
        timed: whether times are timestamps, so that they have days.

    Returns:
        int8 [rows], a place in `REASONS`, or -1 where the event stays.
    """
    verdict = np.full(len(users), -1, dtype=np.int8)

    def remove(rows: NDArray[np.bool_], reason: str) -> None:
        verdict[rows & (verdict < 0)] = REASONS.index(reason)

    order = by_user(users, times)
    remove(_duplicates(order, users, items, times, names), DUPLICATE)
    if timed:
        remove(_robots(order[verdict[order] < 0], users, times // DAY_MS, config.max_user_events_per_day), OUTLIER)
    if not config.keep_repeats:
        remove(_repeats(order[verdict[order] < 0], users, items, good), REPEAT)
    return verdict


@dataclass(frozen=True)
class Part:
    """Some of the events, for the rules on noise.

    Attributes:
        users: integers [rows].
        items: integers [rows].
        verdict: int8 [rows], -1 where the event stays; what these rules remove is written here.
    """

    users: NDArray[Any]
    items: NDArray[Any]
    verdict: NDArray[np.int8]


def of_noise(parts: Iterable[Part], config: PrepareConfig) -> None:
    """The verdicts of the two noise rules, which affect each other, so they alternate until neither removes anything.

    Args:
        parts: all events; they are gone through several times.
        config: limits.
    """
    kept: dict[str, IntArray] = {"users": np.zeros(0, dtype=np.int64), "items": np.zeros(0, dtype=np.int64)}
    for part in parts:
        for name in kept:
            codes = getattr(part, name)
            kept[name] = added(kept[name], np.bincount(codes[part.verdict < 0], minlength=codes.max(initial=-1) + 1))
    rules = (("users", config.min_user_events, FEW_USER_EVENTS), ("items", config.min_item_events, FEW_ITEM_EVENTS))
    removed_any = True
    while removed_any:
        removed_any = False
        for name, least, reason in rules:
            rare = (kept[name] > 0) & (kept[name] < least)
            if not rare.any():
                continue
            removed_any = True
            for part in parts:
                gone = np.flatnonzero(rare[getattr(part, name)] & (part.verdict < 0))
                part.verdict[gone] = REASONS.index(reason)
                for one in kept:
                    kept[one] -= np.bincount(getattr(part, one)[gone], minlength=len(kept[one]))


def by_user(users: NDArray[np.integer], times: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows, sorted by user, then time, then row: int64 [rows].

    User and time are one number where they fit, which numpy sorts at several times the speed of a stable sort; rows of equal numbers are
    put in order after it.
    """
    if not len(users):
        return np.zeros(0, dtype=np.int64)
    first, span = int(times.min()), int(times.max()) - int(times.min()) + 1
    if (int(users.max()) - int(users.min()) + 1) * span > np.iinfo(np.int64).max:
        order = np.argsort(times, kind="stable")
        return order[np.argsort(users[order], kind="stable")]
    keys = (users.astype(np.int64) - users.min()) * span + (times - first)
    order = np.argsort(keys)
    keys = keys[order]
    same = ~_changes(keys)
    same[:-1] |= same[1:]
    tied = np.flatnonzero(same)
    rows = order[tied]
    order[tied] = rows[np.lexsort((rows, keys[tied]))]
    return order


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
