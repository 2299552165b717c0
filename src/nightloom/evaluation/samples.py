"""What changed for a user: the ten items of tonight's model beside the champion's ten, for a few users drawn by the seed."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightloom.core.sequences import Queries
from nightloom.packaging.bundle import Bundle

USERS = 4
"""Users whose lists are kept."""
LENGTH = 10
"""Items of a list that is kept."""
FEWEST_EVENTS = 2
"""A sample user has at least so many events, so that the same user's recommendation can be explained."""


def pick(queries: Queries, n: int, seed: int) -> NDArray[np.int64]:
    """Draw rows of queries for a sample that the report shows.

    Args:
        queries: histories with their held-out items.
        n: how many; a smaller sample of the same seed is part of a larger one.
        seed: the same seed draws the same rows.

    Returns:
        int64 [up to n], in the order of the queries; only histories of at least `FEWEST_EVENTS` events, and the last query of a user.
    """
    able = np.flatnonzero(queries.histories.lengths >= FEWEST_EVENTS)
    able = able[np.flatnonzero(np.diff(queries.users[able], append=-1))]
    return np.sort(np.random.default_rng(seed).permutation(able)[:n])


def titles(model: Bundle) -> NDArray[np.object_]:
    """What a reader calls each item: its first text column, or its id where that is empty, object [items]."""
    column = next((name for name, kind in model.spec.kinds.items() if kind == "text" and name in model.items), None)
    if column is None:
        return model.item_ids
    named = model.items[column]
    return np.where(named.notna(), named, model.item_ids).astype(object)


def sample_lists(
    rows: NDArray[np.int64],
    user_ids: NDArray[np.object_],
    bundle: Bundle,
    challenger: NDArray[np.integer],
    champion: NDArray[np.integer] | None,
) -> dict[str, Any]:
    """The content of `sample_lists.json`, with nothing of a user but the id.

    Args:
        rows: int64 [sample], the users that are shown, from `pick`.
        user_ids: object [n], of every query.
        bundle: tonight's model, which names the items.
        challenger: int [n, longest], its lists over tonight's dense items, best first; -1 where a list has ended.
        champion: the champion's lists over the same items; None without a champion.

    Returns:
        `users`, each with `user_id` and the lists `challenger` and `champion` of at most ten items. An item has `item_id`, `title`,
        `rank`, and `other_rank`, its rank in the other list as far as that is known, else None. Over all users `shared_at_10` is the mean
        number of items that are in both lists. `same_first` is the share of users whose first item is the same. Both are None without
        a champion.
    """
    names = titles(bundle)
    depth = challenger.shape[1] if champion is None else min(challenger.shape[1], champion.shape[1])

    def listed(mine: NDArray[np.integer], its: NDArray[np.integer]) -> list[dict[str, Any]]:
        ranks = {item: rank for rank, item in enumerate(its.tolist(), start=1) if item >= 0}
        return [
            {"item_id": str(bundle.item_ids[item]), "title": str(names[item]), "rank": rank, "other_rank": ranks.get(item)}
            for rank, item in enumerate(mine[:LENGTH].tolist(), start=1)
            if item >= 0
        ]

    nothing = np.zeros(0, dtype=np.int64)
    users = [
        {
            "user_id": str(user_ids[row]),
            "challenger": listed(challenger[row], nothing if champion is None else champion[row]),
            "champion": [] if champion is None else listed(champion[row], challenger[row]),
        }
        for row in rows.tolist()
    ]
    found: dict[str, Any] = {"users": users, "known_ranks": depth, "shared_at_10": None, "same_first": None}
    if champion is not None and len(champion):
        mine, its = challenger[:, :LENGTH], champion[:, :LENGTH]
        found["shared_at_10"] = float(((mine[:, :, None] == its[:, None, :]) & (mine[:, :, None] >= 0)).sum(axis=(1, 2)).mean())
        found["same_first"] = float((mine[:, 0] == its[:, 0]).mean())
    return found


def without_blocked(lists: Mapping[str, Any], blocked: Set[str]) -> dict[str, Any]:
    """The content of `sample_lists.json` without items that are not to be shown; the others keep their ranks.

    Args:
        lists: what `sample_lists` gave.
        blocked: their ids.
    """
    users = [
        {**user} | {side: [item for item in user[side] if item["item_id"] not in blocked] for side in ("challenger", "champion")}
        for user in lists["users"]
    ]
    return {**lists, "users": users}
