"""How well an outsider tells from the model whether an event was learned from: the membership attack, measured each night.

Events of the validation part were learned from in the refit, those of the test part were not, and both kinds are asked in the same
way. An attack gives each event a score, and its AUC says how often a learned event scores higher than another one: .5 is chance.

What ships can be attacked by the probability that it gives to an event (Yeom et al. 2018, Privacy risk in machine learning), as it is
or beside how popular the item is. Who also had the weights of before the refit could compare the two, event by event (Watson et al.
2022, On the importance of difficulty calibration in membership inference attacks). That is why those weights are not registered.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file

from nightloom.core.attacked import SEARCH
from nightloom.core.click_metrics import auc
from nightloom.core.ragged import owners
from nightloom.core.ranking import blocks
from nightloom.core.sequences import Queries, Sequences
from nightloom.core.streaming import queries_of
from nightloom.models.scorers.popularity import positive_counts
from nightloom.models.scorers.score_fusion import NETWORK
from nightloom.models.sequential.large_catalogue import FROM_ITEMS
from nightloom.models.sequential.network import SequentialNetwork
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.training.run import ONE_CUT

FloatArray = NDArray[np.float64]
MOST_QUERIES, MOST_SCORES = 2_000, 500_000_000
"""Queries of each part that are asked, and their scores: the standard error of an AUC is then about .01, twice that at a million items."""
FEWEST = 50
"""Events of each part below which nothing is said."""


def measure_membership(
    recommender: SequentialRecommender, sequences: Sequences, protocol: str, search: Path, *, exclude_seen: bool, seed: int
) -> dict[str, Any] | None:
    """Attack the model.

    Args:
        recommender: what ships.
        sequences: all events, with the cutoffs of the split.
        protocol: of the split.
        search: the weights before the refit; the attack that needs them is left out where there are none.
        exclude_seen: whether items of a history are left out.
        seed: of the sample of queries.

    Returns:
        `events` and `users`: attack -> AUC. A user's score is the mean over the user's events of a part, and users have both.
        `shipped_events` and `shipped_users` are the best attacks on what ships, `members` and `others` numbers of events. None where
        the validation part was not learned from, or there are too few events.
    """
    if protocol not in ONE_CUT:
        return None
    parts = [
        _drawn(queries_of(protocol, sequences, part, exclude_seen=exclude_seen), seed, sequences.n_items) for part in ("validation", "test")
    ]
    if min(len(part.targets) for part in parts) < FEWEST:
        return None
    model, before = copy(recommender), before_refit(recommender, search)
    model.reranker = None  # it orders a hundred items by the same scores
    popularity = np.log1p(positive_counts(sequences.train(with_validation=True), sequences.n_items))
    found: dict[str, list[FloatArray]] = {}
    for part in parts:
        for name, scores in _attacks(model, before, part, popularity).items():
            found.setdefault(name, []).append(scores)
    who = [part.users[owners(part.target_offsets)] for part in parts]
    figures: dict[str, Any] = {
        "events": {name: _auc(*scores) for name, scores in found.items()},
        "users": {name: _auc(*_per_user(scores, who)) for name, scores in found.items()},
        "members": len(parts[0].targets),
        "others": len(parts[1].targets),
    }
    shipped = {f"shipped_{unit}": max(value for name, value in figures[unit].items() if name != SEARCH) for unit in ("events", "users")}
    return figures | shipped


def _drawn(queries: Queries, seed: int, n_items: int) -> Queries:
    """A sample of queries, in order of history length."""
    rows, most = np.arange(len(queries)), min(MOST_QUERIES, max(MOST_SCORES // max(n_items, 1), FEWEST))
    if len(rows) > most:
        rows = np.random.default_rng(seed).choice(rows, most, replace=False)
    return queries.take(rows[np.argsort(queries.histories.lengths[rows], kind="stable")])


def before_refit(recommender: SequentialRecommender, search: Path) -> SequentialRecommender | None:
    """The network before the refit, over the same catalogue, alone; None where its weights are not there."""
    if not search.is_file():
        return None
    tensors = load_file(search)
    rows = tensors.pop("content.id_rows")
    state = {name.removeprefix("net."): value for name, value in tensors.items()}
    net = SequentialNetwork(recommender.config, replace(recommender.shape, n_ids=len(state["fusion.ids.weight"]) - 1))
    net.load_state_dict(state)
    net.requires_grad_(False)
    content = replace(recommender.content, id_rows=rows)
    return SequentialRecommender(recommender.config, recommender.shape, net, content, {}, {})


def _attacks(
    model: SequentialRecommender, before: SequentialRecommender | None, queries: Queries, popularity: FloatArray
) -> dict[str, FloatArray]:
    """Attack -> score of each held-out event, higher where it looks learned from."""
    parts: dict[str, list[FloatArray]] = {}
    for some in blocks(queries, model.n_items):
        for name, scores in _tables(model, before, some):
            parts.setdefault(name, []).append(_log_probability(scores, some))
    found = {name: np.concatenate(one) for name, one in parts.items()}
    attacks = {name: found[name] for name in (NETWORK, "fused")}
    attacks |= {f"{name} beside popularity": scores - popularity[queries.targets] for name, scores in attacks.items()}
    return attacks | ({SEARCH: found[NETWORK] - found[SEARCH]} if before else {})


def _tables(model: SequentialRecommender, before: SequentialRecommender | None, some: Queries) -> Iterator[tuple[str, NDArray[np.float32]]]:
    histories = some.histories.packed()
    network = model.network_scores(histories)
    yield NETWORK, network
    if before is not None:
        yield SEARCH, before.network_scores(histories)
    large = model.n_items > FROM_ITEMS
    yield "fused", model.scores(histories) if large else model.finish(network, model.scorer_scores(histories), histories)


def _log_probability(scores: NDArray[np.float32], queries: Queries) -> FloatArray:
    """Log-softmax of the held-out items."""
    owner, wide = owners(queries.target_offsets), scores.astype(np.float64)
    most = wide.max(1, keepdims=True)
    total = most[:, 0] + np.log(np.exp(wide - most).sum(1))
    return np.asarray(wide[owner, queries.targets] - total[owner])


def _per_user(scores: list[FloatArray], who: list[NDArray[np.int64]]) -> list[FloatArray]:
    """Means over each user's events of a part."""
    found = []
    for part, users in zip(scores, who, strict=True):
        row = np.unique(users, return_inverse=True)[1]
        found.append(np.bincount(row, part) / np.bincount(row))
    return found


def _auc(members: FloatArray, others: FloatArray) -> float:
    return auc(np.arange(len(members) + len(others)) < len(members), np.concatenate([members, others]))
