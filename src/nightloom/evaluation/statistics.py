"""Paired bootstrap over users: by how much one run is better than another on the same held-out users."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nightloom.core.errors import InputError
from nightloom.core.metrics import NAMES, from_frame, whole_ranks
from nightloom.evaluation.score_interval import Spread

BLOCK_CELLS = 1 << 22
"""Most drawn users in memory at once."""


@dataclass(frozen=True)
class Difference:
    """A metric of run a minus that of run b, over the same users.

    Attributes:
        a: mean of run a.
        b: mean of run b.
        difference: a - b.
        low: lower end of the interval of the difference.
        high: upper end.
        share: twice the smaller share of resamples on either side of zero, at most 1. Read like a p-value: small
            when the difference is unlikely to be chance.
        users: number of users.
    """

    a: float
    b: float
    difference: float
    low: float
    high: float
    share: float
    users: int

    @property
    def relative(self) -> float | None:
        """The difference as a share of run b; None when b is 0."""
        return self.difference / self.b if self.b else None


def resampled_means(values: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """Column means of rows drawn with replacement (Efron 1979, Bootstrap methods).

    Args:
        values: float64 [users, columns]; the columns of a resample share its draw.
        resamples: how many.
        seed: the same seed and number of users give the same draws.

    Returns:
        float64 [resamples, columns].
    """
    users, random = len(values), np.random.default_rng(seed)
    means = np.empty((resamples, values.shape[1]))
    step = max(1, BLOCK_CELLS // users)
    for first in range(0, resamples, step):
        rows = min(step, resamples - first)
        drawn = random.integers(0, users, (rows, users)) + np.arange(rows)[:, None] * users
        times = np.bincount(drawn.ravel(), minlength=rows * users).reshape(rows, users)
        means[first : first + rows] = times @ values / users
    return means


def paired(
    a: Mapping[str, NDArray[np.float64]],
    b: Mapping[str, NDArray[np.float64]],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    same: bool = True,
) -> dict[str, Difference]:
    """Compare metrics of two runs on the same users: the mean difference with its interval.

    The interval is the percentile interval, or the score interval where that is wider: the former collapses where few users differ
    (see `nightloom.evaluation.score_interval`). The gate, `nightloom compare`, plots and experiments all ask here, by the same seed and
    in whatever order they hold the users: one quantity has one interval.

    Args:
        a: metric -> float64 [users].
        b: the same metrics of the same users, in the same order.
        confidence: of the interval.
        resamples: how often users are drawn.
        seed: of the draws. Swapping a and b with the same seed negates the difference and mirrors its interval.
        same: whether runs that differ for no user are one model, and differ by nothing. If not, agreement on these users does not show
            that nobody would lose anything, and the interval is the score interval.

    Raises:
        InputError: there are no users.
    """
    first, second = np.column_stack(list(a.values())), np.column_stack([b[name] for name in a])
    if not len(first):
        raise InputError("the two runs share no held-out user, so they can not be compared. Compare runs on the same data and protocol.")
    apart = first - second
    ordered, turned, symmetric = _in_order(apart)
    drawn = resampled_means(ordered, resamples, seed)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    low, high = np.where(turned, -high, low), np.where(turned, -low, high)
    low, high = np.where(symmetric, (low - high) / 2, low), np.where(symmetric, (high - low) / 2, high)
    half = np.array([Spread.of(*pair).half_width(confidence) for pair in zip(first.T, second.T, strict=True)])
    half = half * (apart.any(axis=0) | (not same))
    low, high = np.minimum(low, apart.mean(axis=0) - half), np.maximum(high, apart.mean(axis=0) + half)
    share = np.minimum(1, 2 * np.minimum((drawn <= 0).mean(axis=0), (drawn >= 0).mean(axis=0)))
    means = (first.mean(axis=0), second.mean(axis=0), apart.mean(axis=0))
    figures = np.column_stack([*means, low, high, share]).tolist()
    return {
        name: Difference(a=mine, b=its, difference=by, low=lower, high=upper, share=probability, users=len(first))
        for name, (mine, its, by, lower, upper, probability) in zip(a, figures, strict=True)
    }


def _in_order(apart: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Differences in an order of their own, so that draws depend neither on the order of the users nor on which run is named first.

    Args:
        apart: float64 [users, columns].

    Returns:
        Each column sorted, negated where that comes first in the order of its values; whether it was negated, bool [columns]; and
        whether negating it changes nothing, bool [columns].
    """
    ordered = np.sort(apart, axis=0)
    other = -ordered[::-1]
    unlike = ordered != other
    place, columns = unlike.argmax(axis=0), np.arange(apart.shape[1])
    turned = other[place, columns] < ordered[place, columns]
    return np.where(turned, other, ordered), turned, ~unlike.any(axis=0)


def interval(values: NDArray[np.float64], confidence: float = 0.95) -> tuple[float, float]:
    """Normal interval of one metric's mean: mean -+ z * standard deviation / sqrt(users), within 0 and 1 as metrics are.

    Args:
        values: float64 [users], at least one; a single user gives an interval of no width.
        confidence: of the interval.
    """
    centre, users = float(values.mean()), len(values)
    spread = float(values.std(ddof=1)) if users > 1 else 0.0
    half = NormalDist().inv_cdf((1 + confidence) / 2) * spread / users**0.5
    return max(centre - half, 0.0), min(centre + half, 1.0)


def pair_rows(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of per_user.parquet that two runs share, by user and held-out item, in the same sorted order.

    Raises:
        InputError: a run names a user's item twice, as rows of several families or protocols do.
    """
    key = ["user_id", "item_id"]
    for frame in (a, b):
        twice = frame.duplicated(key)
        if twice.any():
            example = frame.loc[twice, key].iloc[0]
            raise InputError(
                f"per_user: {int(twice.sum()):,} of {len(frame):,} rows name a user's held-out item again, for example "
                f"user {example['user_id']!r}, item {example['item_id']!r}. Keep the rows of one family and one protocol."
            )
    left, right = a.set_index(key).sort_index(), b.set_index(key).sort_index()
    shared = left.index.intersection(right.index, sort=False).sort_values()
    return left.loc[shared].reset_index(), right.loc[shared].reset_index()


def compare(a: pd.DataFrame, b: pd.DataFrame, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Paired statistics of two runs over the held-out items that both ranked.

    Args:
        a: rows of per_user.parquet, of one family and one protocol.
        b: those of the other run.
        confidence: of the intervals.
        resamples: how often users are drawn.
        seed: of the draws.

    Returns:
        One row a metric: `metric`, `a` and `b` (means), `difference` (a - b), `low`, `high`, `users`.

    Raises:
        InputError: the runs share no held-out item, or rows of several families or protocols are mixed.
    """
    mine, its = pair_rows(a, b)
    same = bool(np.array_equal(whole_ranks(mine["rank"]), whole_ranks(its["rank"])))
    first, second = columns(from_frame(mine)), columns(from_frame(its))
    found = paired(first, second, confidence=confidence, resamples=resamples, seed=seed, same=same)
    rows = [(name, one.a, one.b, one.difference, one.low, one.high, one.users) for name, one in found.items()]
    return pd.DataFrame(rows, columns=["metric", "a", "b", "difference", "low", "high", "users"])


def columns(metrics: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """A frame of metrics as vectors."""
    return {name: metrics[name].to_numpy(dtype=np.float64) for name in NAMES}
