"""Paired bootstrap over users: by how much one run is better than another on the same held-out users.

Chance draws users, with all their queries. A user counts by `nightloom.core.metrics.parts_of_users`: the parts of a mean over queries,
and as the weight of a user the number of queries, divided by the mean number. With one query a user every weight is 1.
"""

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
        queries: number of their queries.
    """

    a: float
    b: float
    difference: float
    low: float
    high: float
    share: float
    users: int
    queries: int

    @property
    def relative(self) -> float | None:
        """The difference as a share of run b; None when b is 0."""
        return self.difference / self.b if self.b else None


def weights_of(queries: NDArray[np.integer]) -> NDArray[np.float64]:
    """Weight of each user in a mean over queries, float64 [users] of mean 1, from the number of queries of each."""
    found: NDArray[np.float64] = queries / queries.mean() if len(queries) else np.zeros(0)
    return found


def resampled_means(
    values: NDArray[np.float64], resamples: int, seed: int, weights: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Column means of rows drawn with replacement (Efron 1979, Bootstrap methods): sum of what was drawn by the sum of its weights.

    Args:
        values: float64 [users, columns]; the columns of a resample share its draw.
        resamples: how many.
        seed: the same seed and number of users give the same draws.
        weights: float64 [users] or [users, columns] of mean 1, see `weights_of`; None: each is 1.

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
        means[first : first + rows] = times @ values / (users if weights is None else times @ weights.reshape(users, -1))
    return means


def paired(
    a: Mapping[str, NDArray[np.float64]],
    b: Mapping[str, NDArray[np.float64]],
    *,
    queries: NDArray[np.integer] | None = None,
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
        queries: int [users], how many each user has, where a and b hold users' parts of means over queries; None: one each.
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
    ordered, weights, turned, symmetric = _in_order(apart, np.ones(len(apart)) if queries is None else weights_of(queries))
    drawn = resampled_means(ordered, resamples, seed, None if queries is None else weights)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    low, high = np.where(turned, -high, low), np.where(turned, -low, high)
    low, high = np.where(symmetric, (low - high) / 2, low), np.where(symmetric, (high - low) / 2, high)
    half = np.array([Spread.of(*pair).half_width(confidence) for pair in zip(first.T, second.T, strict=True)])
    half = half * (apart.any(axis=0) | (not same))
    low, high = np.minimum(low, apart.mean(axis=0) - half), np.maximum(high, apart.mean(axis=0) + half)
    share = np.minimum(1, 2 * np.minimum((drawn <= 0).mean(axis=0), (drawn >= 0).mean(axis=0)))
    means = (first.mean(axis=0), second.mean(axis=0), apart.mean(axis=0))
    figures = np.column_stack([*means, low, high, share]).tolist()
    counts = {"users": len(first), "queries": len(first) if queries is None else int(queries.sum())}
    return {
        name: Difference(a=mine, b=its, difference=by, low=lower, high=upper, share=probability, **counts)
        for name, (mine, its, by, lower, upper, probability) in zip(a, figures, strict=True)
    }


def _in_order(
    apart: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Differences in an order of their own, so that draws depend neither on the order of the users nor on which run is named first.

    Args:
        apart: float64 [users, columns].
        weights: float64 [users].

    Returns:
        Each column sorted, negated where that comes first in the order of its values; the weights in the same order, float64
        [users, columns]; whether a column was negated, bool [columns]; and whether negating it changes nothing, bool [columns].
    """
    heavy = np.broadcast_to(weights[:, None], apart.shape)

    def in_order(values: NDArray[np.float64]) -> NDArray[np.float64]:
        order = np.lexsort((heavy, values), axis=0)
        return np.stack([np.take_along_axis(one, order, axis=0) for one in (values, heavy)])

    given, other = in_order(apart), in_order(-apart)
    unlike = (given != other).any(axis=0)
    place, columns = unlike.argmax(axis=0), np.arange(apart.shape[1])
    (value, weight), (its_value, its_weight) = given[:, place, columns], other[:, place, columns]
    turned = (its_value < value) | ((its_value == value) & (its_weight < weight))
    ordered, by = np.where(turned, other, given)
    return ordered, by, turned, ~unlike.any(axis=0)


def interval(values: NDArray[np.float64], confidence: float = 0.95, queries: NDArray[np.integer] | None = None) -> tuple[float, float]:
    """Normal interval of one metric's mean: mean -+ z * standard deviation / sqrt(users), within 0 and 1 as metrics are.

    Where users have several queries, the mean is a ratio, of the sum of hits and that of queries. The deviation is that of its
    linearisation (Cochran 1977, Sampling Techniques): of each user's part less the mean times the user's weight.

    Args:
        values: float64 [users], at least one; a single user gives an interval of no width.
        confidence: of the interval.
        queries: int [users], how many each user has, where `values` are users' parts of a mean over queries; None: one each.
    """
    centre, users = float(values.mean()), len(values)
    about = values if queries is None else values - centre * (weights_of(queries) - 1)
    spread = float(about.std(ddof=1)) if users > 1 else 0.0
    half = NormalDist().inv_cdf((1 + confidence) / 2) * spread / users**0.5
    return max(centre - half, 0.0), min(centre + half, 1.0)


def pair_rows(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of per_user.parquet that two runs share, in the same sorted order.

    A row is known by its user, its held-out item, and the time of the held-out event; where a user has an item several times at one time,
    which of them it is. Where a run does not know times, the number of its query stands for them. Rows of runs before there were such
    numbers are of query 0.

    Raises:
        InputError: a run names a query's item twice, as rows of several families or protocols do.
    """
    timed = all("time" in frame and bool(frame["time"].notna().all()) for frame in (a, b))
    left, right = (_keyed(frame, timed=timed) for frame in (a, b))
    shared = left.index.intersection(right.index, sort=False).sort_values()
    return left.loc[shared].reset_index(), right.loc[shared].reset_index()


def _keyed(frame: pd.DataFrame, *, timed: bool) -> pd.DataFrame:
    """Rows of per_user.parquet, indexed and sorted by what they are known by; see `pair_rows`."""
    frame, key = (frame if "query" in frame else frame.assign(query=0)), ["user_id", "query", "item_id"]
    twice = frame.duplicated(key)
    if twice.any():
        example = frame.loc[twice, key].iloc[0]
        raise InputError(
            f"per_user: {int(twice.sum()):,} of {len(frame):,} rows name a user's held-out item again, for example "
            f"user {example['user_id']!r}, item {example['item_id']!r}. Keep the rows of one family and one protocol."
        )
    if not timed:
        return frame.set_index(key).sort_index()
    key = ["user_id", "item_id", "time"]
    ordered = frame.sort_values("query", kind="stable")
    return ordered.assign(again=ordered.groupby(key).cumcount()).set_index([*key, "again"]).sort_index()


def compare(a: pd.DataFrame, b: pd.DataFrame, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Paired statistics of two runs over the held-out items that both ranked.

    Args:
        a: rows of per_user.parquet, of one family and one protocol.
        b: those of the other run.
        confidence: of the intervals.
        resamples: how often users are drawn.
        seed: of the draws.

    Returns:
        One row a metric: `metric`, `a` and `b` (means), `difference` (a - b), `low`, `high`, `users`, `queries`.

    Raises:
        InputError: the runs share no held-out item, or rows of several families or protocols are mixed.
    """
    mine, its = pair_rows(a, b)
    same = bool(np.array_equal(whole_ranks(mine["rank"]), whole_ranks(its["rank"])))
    first, second = from_frame(mine), from_frame(its)
    found = paired(
        columns(first),
        columns(second),
        queries=first["queries"].to_numpy(dtype=np.int64),
        confidence=confidence,
        resamples=resamples,
        seed=seed,
        same=same,
    )
    rows = [(name, one.a, one.b, one.difference, one.low, one.high, one.users, one.queries) for name, one in found.items()]
    return pd.DataFrame(rows, columns=["metric", "a", "b", "difference", "low", "high", "users", "queries"])


def columns(metrics: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """A frame of metrics as vectors."""
    return {name: metrics[name].to_numpy(dtype=np.float64) for name in NAMES}
