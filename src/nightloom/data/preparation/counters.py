"""Causal counters: how often a user, an item or a context value was shown and clicked before.

A row's counters come from strictly earlier rows alone. Rows of the same time, such as the ads of one page, do not count for each other:
a model predicts which of them was clicked. Counting in order keeps a row's own click out of its features.

Statistics in place of categories: Micci-Barreca, A Preprocessing Scheme for High-Cardinality Categorical Attributes, SIGKDD Explorations
2001. In order of time: Prokhorenkova et al., CatBoost, NeurIPS 2018.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nightloom.core.ragged import offsets_of

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
PRIOR_WEIGHT = 10.0
"""Weight of the overall rate in a smoothed rate, in impressions."""


@dataclass(frozen=True)
class Past:
    """What was known of each row's key when the row was shown.

    Attributes:
        shown: float64 [rows], earlier known rows of the same key, clicked or not.
        clicked: float64 [rows], those of them that were clicked.
        since: float64 [rows], time since the last of them, in the unit of the times; NaN where there is none.
    """

    shown: FloatArray
    clicked: FloatArray
    since: FloatArray


def count(keys: NDArray[np.integer], times: IntArray, clicks: NDArray[np.bool_], known: NDArray[np.bool_] | None = None) -> Past:
    """Count each row's past among the rows of its key.

    Args:
        keys: integers [rows]; rows of the same key share their past.
        times: int64 [rows], in any unit and any order.
        clicks: bool [rows].
        known: bool [rows]; false rows are never counted, for example those of the test part. None: all are.
    """
    rows = len(keys)
    known = np.ones(rows, dtype=bool) if known is None else known
    order = np.lexsort((times, keys))
    key, time = keys[order], times[order]
    place = np.arange(rows)
    fresh = np.ones(rows, dtype=bool)  # the first row of a key
    fresh[1:] = key[1:] != key[:-1]
    later = fresh.copy()  # the first row of a time within a key: what lies before it is strictly earlier
    later[1:] |= time[1:] != time[:-1]
    first, before = (np.maximum.accumulate(np.where(flags, place, 0)) for flags in (fresh, later))

    def until(flags: NDArray[np.bool_]) -> IntArray:
        total = offsets_of(flags)
        return total[before] - total[first]

    last = np.concatenate([[-1], np.maximum.accumulate(np.where(known[order], place, -1))])[before]  # the last known place before
    since = np.where(last >= first, time - time[np.maximum(last, 0)], np.nan) if rows else np.zeros(0)
    found = np.empty((3, rows))
    found[:, order] = until(known[order]), until(known[order] & clicks[order]), since
    return Past(*found)


def counters(
    keys: Mapping[str, NDArray[np.integer]], times: IntArray, clicks: NDArray[np.bool_], known: NDArray[np.bool_] | None = None
) -> dict[str, FloatArray]:
    """Counters of every key as columns for a model.

    Each key has three columns: `<key> shown` = log(1 + shown), `<key> since` = log(1 + time since the last; NaN where there is none), and
    `<key> rate`. The overall rate is r = (clicks + 1) / (impressions + 2), of all earlier known rows. A key's rate is the log-odds
    of (clicked + w r) / (shown + w), less those of r. So 0 means "like any other row", which is also the value of a new key.

    Args:
        keys: name -> integers [rows].
        times: int64 [rows].
        clicks: bool [rows].
        known: as in `count`.

    Returns:
        Column name -> float64 [rows].
    """
    overall = count(np.zeros(len(times), dtype=np.int64), times, clicks, known)
    usual = (overall.clicked + 1) / (overall.shown + 2)
    columns: dict[str, FloatArray] = {}
    for name, codes in keys.items():
        past = count(codes, times, clicks, known)
        rate = (past.clicked + PRIOR_WEIGHT * usual) / (past.shown + PRIOR_WEIGHT)
        columns[f"{name} shown"] = np.log1p(past.shown)
        columns[f"{name} rate"] = log_odds(rate) - log_odds(usual)
        columns[f"{name} since"] = np.log1p(past.since)
    return columns


def log_odds(rate: FloatArray) -> FloatArray:
    """log(p / (1 - p)) of rates strictly between 0 and 1."""
    return np.log(rate) - np.log1p(-rate)
