"""Signals of the events, a figure a day, each day against the four weeks before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nightloom.core.divergence import jensen_shannon, psi

DAY, HOURS = 86_400, 24
BEFORE = 28
"""Days that a day is compared with."""
SHOWN = 56
"""Days that get a figure."""
BINS = 10
"""Bins of items by popularity, of about as many events each, and one for items without events before."""


@dataclass(frozen=True)
class Signal:
    """One figure a day.

    Attributes:
        name: what it is.
        said: what it tells, for readers.
        values: float64 [days], the newest last; NaN where a day has nothing to tell.
        rises: whether only a rise is news, as for a distance.
        unit: "count", "share" or "distance".
        least: smallest step from what is usual that is news.
    """

    name: str
    said: str
    values: NDArray[np.float64]
    rises: bool
    unit: str
    least: float = 0.0


def signals(events: pd.DataFrame, positive: NDArray[np.bool_]) -> tuple[NDArray[np.int64], list[Signal]]:
    """Signals of the last `SHOWN` days of events.

    The newest day counts where it is complete: what comes after its last full day is left out, or volume would seem to fall every night.

    Args:
        events: canonical events with `user_id`, `item_id` and `timestamp`.
        positive: bool [events], labels.

    Returns:
        Days since 1970, int64 [days], and the signals.
    """
    seconds = events["timestamp"].to_numpy("datetime64[s]").astype(np.int64)
    items, users = (pd.factorize(events[name])[0] for name in ("item_id", "user_id"))
    day = seconds // DAY
    newest = int(seconds.max() // DAY) - (1 if (seconds.max() + 1) % DAY else 0)
    days = np.arange(max(int(day.min()) + 1, newest - SHOWN + 1), newest + 1)
    first_day = np.full(items.max() + 1, np.iinfo(np.int64).max)
    np.minimum.at(first_day, items, day)
    order = np.argsort(day, kind="stable")
    day, items, users, hour, labels = day[order], items[order], users[order], (seconds % DAY // 3600)[order], positive[order]
    found = np.full((6, len(days)), np.nan)
    for at, one in enumerate(days):
        begin, end = np.searchsorted(day, [one, one + 1])
        past = slice(int(np.searchsorted(day, one - BEFORE)), int(begin))
        now = slice(int(begin), int(end))
        many = int(end - begin)
        found[0, at] = many
        found[1, at] = len(np.unique(users[now]))
        if not many or past.start == past.stop:
            continue
        found[2, at] = (first_day[items[now]] == one).mean()
        found[3, at] = labels[now].mean()
        bins = _by_popularity(np.bincount(items[past], minlength=len(first_day)))
        found[4, at] = psi(*(np.bincount(bins[items[part]], minlength=BINS + 1) for part in (past, now)))
        found[5, at] = jensen_shannon(*(np.bincount(hour[part], minlength=HOURS) for part in (past, now)))
    told = (
        ("events", "events of the day", False, "count"),
        ("users", "people of the day", False, "count"),
        ("new items", "share of events on items that had none before", False, "share"),
        ("positive", "share of events that are positive labels", False, "share"),
        ("popularity", "what is popular: PSI of events by deciles of the items' former popularity", True, "distance"),
        ("hours", "when people come: Jensen-Shannon divergence of the hours (UTC)", True, "distance"),
    )
    return days, [Signal(name, said, values, rises, unit) for (name, said, rises, unit), values in zip(told, found, strict=True)]


def _by_popularity(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The bin of each item, int64 [items]: 0 without events, then from rare to popular, with about as many events each."""
    order = np.argsort(counts, kind="stable")
    total = np.cumsum(counts[order])
    bins = np.zeros(len(counts), dtype=np.int64)
    bins[order] = np.minimum((total - counts[order]) * BINS // max(int(total[-1]), 1), BINS - 1) + 1
    bins[counts == 0] = 0
    return bins
