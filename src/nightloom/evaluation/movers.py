"""What rises and falls between the champion and tonight's model, on the same users, and by which parts of the score.

An item's rank is taken as its logarithm: from 3 to 1 is as far as from 300 to 100. The fused score is a sum over network and scorers, so
the difference of two models' scores is a sum as well, exactly: by how much each part lifts the item against the catalogue's mean, under
the one model and under the other. A re-ranker, where there is one, acts after that.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightloom.core.recommender import mask_excluded
from nightloom.core.sequences import Histories, Queries
from nightloom.evaluation.rivals import Rival
from nightloom.evaluation.samples import pick
from nightloom.models.scorers.score_fusion import NETWORK, standard
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.packaging.bundle import Bundle

USERS, CELLS = 200, 4_000_000
"""Most users whose lists are compared, and most scores of each part."""
TOP = 50
"""An item counts that is among so many first ones of either model, for `SHARE` of the users."""
SHARE = 0.02
LISTED = 8
"""Items that rise, and items that fall."""

Parts = Mapping[str, NDArray[np.float32]]


def movers(bundle: Bundle, champion: Rival, queries: Queries, *, exclude_seen: bool, seed: int) -> dict[str, Any]:
    """The items that moved most, over users drawn by the seed.

    Args:
        bundle: tonight's model.
        champion: over the same catalogue.
        queries: what tonight's model is asked.
        exclude_seen: whether items of the history are left out.
        seed: of the choice of users.

    Returns:
        `users`, and the lists `rises` and `falls`. An item has `item_id`, `title`, `rank` and `champion_rank` (geometric means), and
        `parts`: part of the score -> what it adds to the difference of the fused scores, the largest first.
    """
    nothing: dict[str, Any] = {"users": 0, "rises": [], "falls": []}
    chosen = queries.take(pick(queries, min(USERS, CELLS // bundle.recommender.n_items + 1), seed))
    if not len(chosen) or not isinstance(champion.model, SequentialRecommender):
        return nothing
    named = champion.bundle.event_names.recoded(chosen, bundle.meta["event_types"])
    ours, parts = _ranks(bundle.recommender, replace(chosen.histories.packed(), prefixes=None), exclude_seen=exclude_seen)
    its, its_parts = _ranks(champion.model, replace(named.histories.packed(), prefixes=None), exclude_seen=exclude_seen)
    there = (ours > 0) & (its > 0)
    often = ((np.minimum(np.where(there, ours, TOP + 1), np.where(there, its, TOP + 1)) <= TOP).mean(0) >= SHARE) & there.any(0)
    logs = [np.where(there, np.log(np.maximum(ranks, 1)), 0).sum(0) / np.maximum(there.sum(0), 1) for ranks in (ours, its)]
    moved = np.where(often, logs[1] - logs[0], 0.0)
    titles = bundle.titles()

    def line(item: int) -> dict[str, Any]:
        rows = there[:, item]
        names = {**parts, **its_parts}
        apart = {name: float(_mean(parts, name, rows, item) - _mean(its_parts, name, rows, item)) for name in names}
        return {
            "item_id": str(bundle.item_ids[item]),
            "title": str(titles[item]),
            "rank": float(np.exp(logs[0][item])),
            "champion_rank": float(np.exp(logs[1][item])),
            "parts": dict(sorted(apart.items(), key=lambda one: -abs(one[1]))),
        }

    order = np.argsort(-moved, kind="stable")
    rises = [line(item) for item in order[:LISTED].tolist() if moved[item] > 0]
    falls = [line(item) for item in order[::-1][:LISTED].tolist() if moved[item] < 0]
    return {"users": len(chosen), "rises": rises, "falls": falls}


def without_blocked(found: Mapping[str, Any], blocked: Set[str]) -> dict[str, Any]:
    """The same without items that are not to be shown."""
    lists = {side: [one for one in found[side] if one["item_id"] not in blocked] for side in ("rises", "falls")}
    return {**found, **lists}


def _ranks(model: SequentialRecommender, histories: Histories, *, exclude_seen: bool) -> tuple[NDArray[np.int64], Parts]:
    """Rank of each item for each query, 0 where it is left out, int64 [n, items]; and each part of the fused score, float32 [n, items]."""
    network, scorers = model.network_scores(histories), model.scorer_scores(histories)
    weights = model.weights_at(histories.lengths)
    share = 1 - sum(weights.values(), np.zeros(len(histories), dtype=np.float32))
    parts = {NETWORK: share[:, None] * standard(network)}
    parts |= {name: weights[name][:, None] * standard(scores) for name, scores in scorers.items()}
    final = model.finish(network, scorers, histories)
    masked = np.where(np.isnan(final), np.float32(-np.inf), final)
    mask_excluded(masked, histories, exclude_seen=exclude_seen, allowed=None)
    order = np.argsort(-masked, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(1, order.shape[1] + 1)[None].repeat(len(order), 0), 1)
    return np.where(np.isneginf(masked), 0, ranks), parts


def _mean(parts: Parts, name: str, rows: NDArray[np.bool_], item: int) -> np.floating[Any]:
    """Mean of a part for one item; a part that a model does not have adds nothing."""
    return parts[name][rows, item].mean() if name in parts else np.float32(0)
