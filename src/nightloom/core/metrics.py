"""Ranking metrics of each user, from ranks alone, so that anyone can recompute them from per_user.parquet.

Needs numpy alone, and pandas where a table is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nightloom.core.errors import InputError
from nightloom.core.ragged import offsets_of, owners

if TYPE_CHECKING:
    import pandas as pd

KS = (5, 10, 20)
"""Depths at which every metric is measured."""

NAMES = tuple(f"{stem}_at_{k}" for stem in ("hr", "recall", "ndcg", "mrr") for k in KS)
"""All metrics, in the order in which they are listed."""


def per_user(ranks: NDArray[np.integer], offsets: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Metrics of each user over the ranks of that user's held-out items.

    hr: any item in the first k. recall: share of the items in the first k. ndcg: see `ndcg` (Järvelin and Kekäläinen
    2002, with binary gains). mrr: 1 / best rank if it is in the first k.

    Args:
        ranks: int [rows], 1 is first; 0 is not rankable, and counts as a miss.
        offsets: int64 [users + 1]; user u's are `ranks[offsets[u]:offsets[u + 1]]`, at least one.

    Returns:
        Metric name -> float64 [users], each from 0 to 1.
    """
    held_out = np.diff(offsets)
    users = len(held_out)
    owner = owners(offsets)
    found: dict[str, NDArray[np.float64]] = {}
    for k in KS:
        hit = (ranks >= 1) & (ranks <= k)
        user, rank = owner[hit], ranks[hit].astype(np.float64)
        hits = np.bincount(user, minlength=users)
        first = np.zeros(users)
        np.maximum.at(first, user, 1 / rank)
        found[f"hr_at_{k}"] = (hits > 0).astype(np.float64)
        found[f"recall_at_{k}"] = hits / held_out
        found[f"ndcg_at_{k}"] = ndcg(ranks, owner, held_out, k)
        found[f"mrr_at_{k}"] = first
    return {name: found[name] for name in NAMES}


def ndcg(ranks: NDArray[np.integer], owner: NDArray[np.integer], held_out: NDArray[np.integer], k: int) -> NDArray[np.float64]:
    """NDCG@k with binary gains: sum of 1 / log2(1 + rank) over the first k, divided by that of a perfect list.

    Args:
        ranks: int [rows], 1 is first; 0 is a miss, and misses may be left out.
        owner: int [rows], the user whose item it is.
        held_out: int [users], held-out items of each user, at least one.
        k: depth; a perfect list has min(held_out, k) hits.

    Returns:
        float64 [users], each from 0 to 1.
    """
    hit = (ranks >= 1) & (ranks <= k)
    ideal = np.cumsum(1 / np.log2(np.arange(2, k + 2)))
    gains = np.bincount(owner[hit], 1 / np.log2(1 + ranks[hit].astype(np.float64)), minlength=len(held_out))
    # Gains that are added up in another order than the ideal's may exceed it by a rounding error.
    found: NDArray[np.float64] = np.minimum(gains / ideal[np.minimum(held_out, k) - 1], 1)
    return found


def mean(metrics: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """Average of each metric over users; empty when there are no users."""
    return {name: float(values.mean()) for name, values in metrics.items() if len(values)}


def from_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Metrics of each user from rows of per_user.parquet.

    Args:
        frame: `user_id`, `rank` (null when not rankable) and any other columns, of one family and one protocol.

    Returns:
        One row a user, indexed by `user_id` in sorted order, whatever the order of the rows; one column a metric.

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
    order = np.lexsort((ranks, codes))
    offsets = offsets_of(np.bincount(codes, minlength=len(users)))
    return pd.DataFrame(per_user(ranks[order], offsets), index=pd.Index(users, name="user_id"))


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
