"""Metrics by group of queries and of held-out items, so that a good mean hides no group that is served badly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nightloom.core.metrics import mean, per_query
from nightloom.core.ragged import offsets_of, owners
from nightloom.core.ranking import Ranked
from nightloom.core.sequences import Queries, Sequences

Masks = Mapping[str, NDArray[np.bool_]]

DAY = 86_400

LENGTHS = (1, 6, 21, 101)
"""Histories of streaming queries are in one slice from each of these lengths on, and in one below."""

AGES = (7, 30)
"""Days since an item's first event, up to which it is in one slice of streaming queries."""

MIN_USERS = 20
"""Attribute values with fewer held-out users make no slice."""

MOST_VALUES = 12
"""Values of one attribute that make slices, those with the most users; a number with more values is cut into quarters."""

HEAD, MID = 0.5, 0.8
"""Shares of the training events that the head, and head and mid together, hold."""

ITEM_SLICES = ("head items", "mid items", "tail items", "unseen items")
"""Slices of held-out items, from the most popular on."""


def user_slices(lengths: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
    """Slices of users that are asked once: new, returning, short and long history.

    Args:
        lengths: int64 [n], events of each history. Short is up to the median of those who have any, long is above.

    Returns:
        Slice name -> bool [n], only those with users.
    """
    new = lengths == 0
    middle = np.median(lengths[~new]) if not new.all() else 0
    found = {"new users": new, "returning users": ~new, "short history": ~new & (lengths <= middle), "long history": lengths > middle}
    return {name: mask for name, mask in found.items() if mask.any()}


def event_slices(queries: Queries, sequences: Sequences) -> dict[str, NDArray[np.bool_]]:
    """Slices of streaming queries: by what is known of the user at that time, whether the user is new, and the item's age.

    Args:
        queries: of one held-out event each.
        sequences: what they are of, with the cutoffs of the split.

    Returns:
        Slice name -> bool [n], only those with queries. A user is new who has no event before the cut. An item's age counts from its first
        event of all; it is left out without times.
    """
    known = (sequences.validation_end - sequences.offsets[:-1])[queries.users]
    found = {"new users": known == 0, "returning users": known > 0}
    level = np.searchsorted(LENGTHS, queries.histories.lengths, side="right")
    found |= {f"history of {name}": level == place for place, name in enumerate(_bins(LENGTHS))}
    if sequences.has_time:
        began = np.full(sequences.n_items, np.iinfo(np.int64).max)
        np.minimum.at(began, sequences.items, sequences.times)
        age = np.searchsorted(np.array(AGES) * DAY, queries.times - began[queries.targets])
        names = (f"items up to {AGES[0]} days old", f"items {AGES[0] + 1} to {AGES[1]} days old", f"items over {AGES[1]} days old")
        found |= {name: age == place for place, name in enumerate(names)}
    return {name: mask for name, mask in found.items() if mask.any()}


def _bins(begins: Sequence[int]) -> list[str]:
    """Names of the bins of a whole number that begin at 0 and at each of some numbers: `0`, `1 to 5` ... `101 or more`."""
    edges = [0, *begins]
    inner = [f"{low} to {high - 1}" if high > low + 1 else str(low) for low, high in pairwise(edges)]
    return [f"{name} events" for name in (*inner, f"{edges[-1]} or more")]


def attribute_slices(attributes: pd.DataFrame) -> dict[str, NDArray[np.bool_]]:
    """Slices of users by the values of each attribute.

    Args:
        attributes: [n], one row a held-out user; `user_id` is no attribute.

    Returns:
        Slice name -> bool [n], only those with users. A missing value is in no slice.
    """
    found: dict[str, NDArray[np.bool_]] = {}
    for column in attributes.columns.drop("user_id", errors="ignore"):
        found |= _values(str(column), attributes[column])
    return {_plain(name): mask for name, mask in found.items() if mask.any()}


def labels(masks: Masks, n: int) -> NDArray[np.object_]:
    """The names of each query's slices, joined by "|": object [n] of str."""
    names: list[list[str]] = [[] for _ in range(n)]
    for name, mask in masks.items():
        for query in np.flatnonzero(mask).tolist():
            names[query].append(name)
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


def measure(ranked: Ranked, users: NDArray[np.integer], masks: Masks, item_slice: NDArray[np.object_]) -> dict[str, dict[str, Any]]:
    """Metrics of every slice; a query counts in an item slice with the held-out items that are in it.

    Args:
        ranked: ranks of the held-out items.
        users: int [n], whose query it is.
        masks: slices of queries, bool [n] each.
        item_slice: object [rows], the slice of each held-out item.

    Returns:
        Slice -> {"users": number, "events": number of held-out events, metric: mean over queries ...}, as in slices.json.
    """
    metrics, many = per_query(ranked.ranks, ranked.offsets), np.diff(ranked.offsets)
    found: dict[str, dict[str, Any]] = {}
    for name, mask in masks.items():
        size = {"users": len(np.unique(users[mask])), "events": int(many[mask].sum())}
        found[name] = size | mean({metric: values[mask] for metric, values in metrics.items()})
    owner = owners(ranked.offsets)
    for name in ITEM_SLICES:
        rows = item_slice == name
        if rows.any():
            queries, lengths = np.unique(owner[rows], return_counts=True)
            size = {"users": len(np.unique(users[queries])), "events": int(rows.sum())}
            found[name] = size | mean(per_query(ranked.ranks[rows], offsets_of(lengths)))
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
