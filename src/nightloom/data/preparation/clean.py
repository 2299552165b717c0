"""Cleaning of events: duplicates, robots, repeats and noise. Every removed event has a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nightloom.data.preparation.labels import is_positive

if TYPE_CHECKING:
    from nightloom.config import PrepareConfig

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
        return events["timestamp"].to_numpy(dtype="datetime64[ms]").astype(np.int64)
    return events["order"].to_numpy(dtype=np.int64)


def clean(events: pd.DataFrame, config: PrepareConfig) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Remove duplicates, robots, repeats (unless `keep_repeats`) and noise, in that order.

    Of a user's events on an item the first is kept, and the first positive one. So a view does not replace the purchase after it. The
    two noise rules affect each other, so they alternate until neither removes anything.

    Args:
        events: canonical events.
        config: limits; see `PrepareConfig`.

    Returns:
        The events that stay, in their order, and those removed, with one of `REASONS` in column `reason`.

    Raises:
        InputError: `positive_min_value` needs a `value` column that is not there.
    """
    users = pd.factorize(events["user_id"])[0]
    items = pd.factorize(events["item_id"])[0]
    times = event_times(events)
    verdict = np.full(len(events), -1, dtype=np.int8)

    def remove(rows: NDArray[np.bool_], reason: str) -> bool:
        rows = rows & (verdict < 0)
        verdict[rows] = REASONS.index(reason)
        return bool(rows.any())

    codes = pd.DataFrame({"user": users, "item": items, "time": times, "event": pd.factorize(events["event"])[0]})
    remove(codes.duplicated().to_numpy(), DUPLICATE)
    if "timestamp" in events:
        remove(_robots(users, times // DAY_MS, verdict < 0, config.max_user_events_per_day), OUTLIER)
    if not config.keep_repeats:
        remove(_repeats(users, items, times, is_positive(events, config), verdict < 0), REPEAT)
    removed_any = True
    while removed_any:
        few_user = remove(_rare(users, verdict < 0, config.min_user_events), FEW_USER_EVENTS)
        few_item = remove(_rare(items, verdict < 0, config.min_item_events), FEW_ITEM_EVENTS)
        removed_any = few_user or few_item
    gone = np.flatnonzero(verdict >= 0)
    removed = events.iloc[gone].assign(reason=np.array(REASONS, dtype=object)[verdict[gone]])
    return events.iloc[np.flatnonzero(verdict < 0)].reset_index(drop=True), removed.astype({"reason": "str"}).reset_index(drop=True)


def _robots(users: NDArray[np.intp], days: NDArray[np.int64], alive: NDArray[np.bool_], limit: int) -> NDArray[np.bool_]:
    """Events of users with more than `limit` remaining events on some day."""
    counts = pd.DataFrame({"user": users[alive], "day": days[alive]}).value_counts(sort=False)
    busy = counts[counts > limit].index.get_level_values("user").to_numpy()
    return np.isin(users, busy)


def _repeats(
    users: NDArray[np.intp], items: NDArray[np.intp], times: NDArray[np.int64], good: NDArray[np.bool_], alive: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Remaining events of each user and item, except the first (by time, then row) and the first positive one.

    Whether an event stays thus depends on earlier events alone. If a later purchase removed a view, its absence from the history would
    leak the purchase.
    """
    rows = np.flatnonzero(alive)
    rows = rows[np.argsort(times[rows], kind="stable")]
    pairs = pd.DataFrame({"user": users[rows], "item": items[rows]})
    positives = pairs[good[rows]]
    repeats = np.zeros(len(users), dtype=bool)
    repeats[rows[pairs.duplicated()]] = True
    repeats[rows[positives.index[~positives.duplicated()]]] = False
    return repeats


def _rare(codes: NDArray[np.intp], alive: NDArray[np.bool_], least: int) -> NDArray[np.bool_]:
    """Events whose code has fewer than `least` remaining events."""
    counts = np.bincount(codes[alive], minlength=codes.max(initial=-1) + 1)
    return (counts < least)[codes]
