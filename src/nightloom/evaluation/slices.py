"""Metrics by group of users and of held-out items, so that a good mean hides no group that is served badly."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nightloom.core.metrics import mean, per_query
from nightloom.core.ragged import offsets_of, owners
from nightloom.core.ranking import Ranked

Masks = Mapping[str, NDArray[np.bool_]]

MIN_USERS = 20
"""Attribute values with fewer held-out users make no slice."""

MOST_VALUES = 12
"""Values of one attribute that make slices, those with the most users; a number with more values is cut into quarters."""

HEAD, MID = 0.5, 0.8
"""Shares of the training events that the head, and head and mid together, hold."""

ITEM_SLICES = ("head items", "mid items", "tail items", "unseen items")
"""Slices of held-out items, from the most popular on."""


def user_slices(lengths: NDArray[np.int64], attributes: pd.DataFrame) -> dict[str, NDArray[np.bool_]]:
    """Slices of the held-out users: new, returning, short and long history, and each attribute's values.

    Args:
        lengths: int64 [n], events of each history. Short is up to the median of those who have any, long is above.
        attributes: [n], one row a held-out user; `user_id` is no attribute.

    Returns:
        Slice name -> bool [n], only those with users. A missing attribute value is in no slice.
    """
    new = lengths == 0
    middle = np.median(lengths[~new]) if not new.all() else 0
    found = {"new users": new, "returning users": ~new, "short history": ~new & (lengths <= middle), "long history": lengths > middle}
    for column in attributes.columns.drop("user_id", errors="ignore"):
        found |= _values(str(column), attributes[column])
    return {_plain(name): mask for name, mask in found.items() if mask.any()}


def labels(masks: Masks, n: int) -> NDArray[np.object_]:
    """The names of each user's slices, joined by "|": object [n] of str."""
    names: list[list[str]] = [[] for _ in range(n)]
    for name, mask in masks.items():
        for user in np.flatnonzero(mask).tolist():
            names[user].append(name)
    return np.array(["|".join(one) for one in names], dtype=object)


def item_slices(popularity: NDArray[np.int64]) -> NDArray[np.object_]:
    """The slice of each item by its positive events in training.

    Items by falling popularity (ties by id) are head until half of all events are covered, mid until 80 %, then tail;
    items without any are unseen.

    Returns:
        object [items] of str, one of `ITEM_SLICES`.
    """
    order = np.argsort(-popularity, kind="stable")
    before = np.cumsum(popularity[order]) - popularity[order]
    level = np.empty(len(popularity), dtype=np.int64)
    level[order] = np.searchsorted(np.array([HEAD, MID]) * popularity.sum(), before, side="right")
    level[popularity == 0] = 3
    return np.array(ITEM_SLICES, dtype=object)[level]


def measure(ranked: Ranked, users: Masks, item_slice: NDArray[np.object_]) -> dict[str, dict[str, Any]]:
    """Metrics of every slice; a user counts in an item slice with the held-out items that are in it.

    Args:
        ranked: ranks of the held-out items.
        users: user slices, bool [n] each.
        item_slice: object [rows], the slice of each held-out item.

    Returns:
        Slice -> {"users": number, metric: mean ...}, as in slices.json.
    """
    metrics = per_query(ranked.ranks, ranked.offsets)
    found: dict[str, dict[str, Any]] = {}
    for name, mask in users.items():
        found[name] = {"users": int(mask.sum())} | mean({metric: values[mask] for metric, values in metrics.items()})
    owner = owners(ranked.offsets)
    for name in ITEM_SLICES:
        rows = item_slice == name
        if rows.any():
            lengths = np.unique(owner[rows], return_counts=True)[1]
            found[name] = {"users": len(lengths)} | mean(per_query(ranked.ranks[rows], offsets_of(lengths)))
    return found


def _values(column: str, values: pd.Series) -> dict[str, NDArray[np.bool_]]:
    """Slices of one attribute."""
    numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    if numeric and values.nunique() > MOST_VALUES:
        return _quarters(column, values.to_numpy(dtype=np.float64, na_value=np.nan))
    counts = values.value_counts()  # falls with the number of users; missing values are left out
    kept = counts[counts >= MIN_USERS].index[:MOST_VALUES]
    return {
        f"{column}={f'{value:g}' if numeric else value}": (values == value).fillna(False).to_numpy(dtype=bool) for value in sorted(kept)
    }


def _quarters(column: str, values: NDArray[np.float64]) -> dict[str, NDArray[np.bool_]]:
    """A number cut at its quartiles, each quarter closed above."""
    present = ~np.isnan(values)
    edges = np.unique(np.quantile(values[present], [0, 0.25, 0.5, 0.75, 1]))
    bins = np.searchsorted(edges[1:-1], values, side="left")
    found = {}
    for quarter, (low, high) in enumerate(pairwise(edges.tolist())):
        mask = present & (bins == quarter)
        if mask.sum() >= MIN_USERS:
            found[f"{column} {'from' if quarter == 0 else 'above'} {low:g} to {high:g}"] = mask
    return found


def _plain(name: str) -> str:
    """A name without the mark that joins names."""
    return name.replace("|", "/")
