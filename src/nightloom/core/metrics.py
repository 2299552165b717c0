"""Ranking metrics of each query, from ranks alone, so that anyone can recompute them from per_user.parquet.

A query is what one list answers: a user at a time. Where a user has several, means are over queries, and users are what chance draws.

Needs numpy alone, and pandas where a table is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nightloom.core.errors import InputError
from nightloom.core.ragged import owners

if TYPE_CHECKING:
    import pandas as pd

KS = (5, 10, 20)
"""Depths at which every metric is measured."""

NAMES = tuple(f"{stem}_at_{k}" for stem in ("hr", "recall", "ndcg", "mrr") for k in KS)
"""All metrics, in the order in which they are listed."""


def per_query(ranks: NDArray[np.integer], offsets: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Metrics of each query over the ranks of its held-out items.

    hr: any item in the first k. recall: share of the items in the first k. ndcg: see `ndcg` (Järvelin and Kekäläinen
    2002, with binary gains). mrr: 1 / best rank if it is in the first k.

    Args:
        ranks: int [rows], 1 is first; 0 is not rankable, and counts as a miss.
        offsets: int64 [n + 1]; query i's are `ranks[offsets[i]:offsets[i + 1]]`, at least one.

    Returns:
        Metric name -> float64 [n], each from 0 to 1.
    """
    held_out = np.diff(offsets)
    queries = len(held_out)
    owner = owners(offsets)
    found: dict[str, NDArray[np.float64]] = {}
    for k in KS:
        hit = (ranks >= 1) & (ranks <= k)
        query, rank = owner[hit], ranks[hit].astype(np.float64)
        hits = np.bincount(query, minlength=queries)
        first = np.zeros(queries)
        np.maximum.at(first, query, 1 / rank)
        found[f"hr_at_{k}"] = (hits > 0).astype(np.float64)
        found[f"recall_at_{k}"] = hits / held_out
        found[f"ndcg_at_{k}"] = ndcg(ranks, owner, held_out, k)
        found[f"mrr_at_{k}"] = first
    return {name: found[name] for name in NAMES}


def ndcg(ranks: NDArray[np.integer], owner: NDArray[np.integer], held_out: NDArray[np.integer], k: int) -> NDArray[np.float64]:
    """NDCG@k with binary gains: sum of 1 / log2(1 + rank) over the first k, divided by that of a perfect list.

    Args:
        ranks: int [rows], 1 is first; 0 is a miss, and misses may be left out.
        owner: int [rows], the query whose item it is.
        held_out: int [n], held-out items of each query, at least one.
        k: depth; a perfect list has min(held_out, k) hits.

    Returns:
        float64 [n], each from 0 to 1.
    """
    hit = (ranks >= 1) & (ranks <= k)
    ideal = np.cumsum(1 / np.log2(np.arange(2, k + 2)))
    gains = np.bincount(owner[hit], 1 / np.log2(1 + ranks[hit].astype(np.float64)), minlength=len(held_out))
    # Gains that are added up in another order than the ideal's may exceed it by a rounding error.
    found: NDArray[np.float64] = np.minimum(gains / ideal[np.minimum(held_out, k) - 1], 1)
    return found


def mean(metrics: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """Average of each metric over queries; empty when there are none."""
    return {name: float(values.mean()) for name, values in metrics.items() if len(values)}


def parts_of_users(
    metrics: Mapping[str, NDArray[np.float64]], users: NDArray[np.integer]
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.int64]]:
    """Each user's part of every mean over queries, so that users can be drawn with all their queries (a cluster bootstrap).

    Args:
        metrics: name -> float64 [n], of each query.
        users: int [n], whose query it is.

    Returns:
        Name -> float64 [users], in ascending order of the user: the sum over the user's queries by the mean number of queries a user has.
        Its mean over users is the mean over queries; with one query a user it is the metric itself. Then int64 [users], queries of each.
    """
    _, owner, many = np.unique(users, return_inverse=True, return_counts=True)
    each = len(users) / max(len(many), 1)
    return {name: np.bincount(owner, values, minlength=len(many)) / each for name, values in metrics.items()}, many


def from_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Metrics of each user from rows of per_user.parquet.

    Args:
        frame: `user_id`, `rank` (null when not rankable), `query` where users have several, and any other columns, of one family and one
            protocol.

    Returns:
        One row a user, indexed by `user_id` in sorted order, whatever the order of the rows: the user's part of each metric's mean over
        queries (see `parts_of_users`), one column a metric, and `queries`, how many the user has.

    Raises:
        InputError: the rows are of several families or protocols, or a rank is not a whole number from 1 on.
    """
    for column in ("family", "protocol"):
        if column in frame and frame[column].nunique() > 1:
            values = ", ".join(sorted(frame[column].unique()))
            raise InputError(f"per_user: the rows are of several values of `{column}` ({values}). Keep those of one of them.")
    import pandas as pd

    ranks = whole_ranks(frame["rank"])
    codes, users = pd.factorize(frame["user_id"], sort=True)
    numbers = frame["query"].to_numpy(dtype=np.int64) if "query" in frame else np.zeros(len(frame), dtype=np.int64)
    order = np.lexsort((ranks, numbers, codes))
    asked, numbers = codes[order], numbers[order]
    begins = np.flatnonzero((np.diff(asked, prepend=-1) != 0) | (np.diff(numbers, prepend=-1) != 0))
    metrics = per_query(ranks[order], np.append(begins, len(frame)).astype(np.int64))
    parts, queries = parts_of_users(metrics, asked[begins])
    return pd.DataFrame(parts, index=pd.Index(users, name="user_id")).assign(queries=queries)


def whole_ranks(column: pd.Series) -> NDArray[np.int64]:
    """Ranks as integers, 0 where null.

    Raises:
        InputError: a rank is not a whole number from 1 on.
    """
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    broken = ~np.isnan(values) & ~((values >= 1) & np.isfinite(values) & (values == np.floor(values)))
    if broken.any():
        raise InputError(
            f"per_user: {int(broken.sum()):,} of {len(values):,} values of `rank` are not whole numbers from 1 on, for example "
            f"{values[broken][0]:g}. A held-out item that can not be ranked has a null rank."
        )
    return np.nan_to_num(values, nan=0.0).astype(np.int64)
