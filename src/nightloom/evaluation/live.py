"""The figure of a model whose scorers go on by day: a service updates them with every event, while the network stays as it was trained."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np

from nightloom.core.metrics import mean, parts_of_users, per_query
from nightloom.core.ragged import owners
from nightloom.core.ranking import ranks
from nightloom.core.sequences import IntArray, Queries, Sequences
from nightloom.core.streaming import Prefixes
from nightloom.evaluation.statistics import interval
from nightloom.models.sequential.recommender import SequentialRecommender

BY_NIGHT = frozenset(("als", "text_neighbours"))
"""Scorers that no service can update with an event: theirs is solved for, or does not depend on events."""
LIVE_STEPS, FEWEST_STEPS, MOST_ITEMS = 12, 3, 2_000_000
"""Parts of the test period, of about equal numbers of queries. Before each, scorers and counters are fitted to all that is known: in a
catalogue of more than some 160,000 items less often, down to three times, so that all fits together are over two million items."""


def measure_live(
    recommender: SequentialRecommender, sequences: Sequences, queries: Queries, *, exclude_seen: bool, confidence: float
) -> dict[str, Any] | None:
    """Rank streaming queries with scorers and counters that know the events before the part of the test period that a query is in.

    Args:
        recommender: tonight's model; it is left as it is.
        sequences: all events, with real times.
        queries: streaming queries of these.
        exclude_seen: whether items of a history are left out.
        confidence: of the intervals.

    Returns:
        `metrics` (name -> mean over queries) and `intervals` (name -> (low, high)); None without times or queries.
    """
    histories = queries.histories
    if not isinstance(histories, Prefixes) or not sequences.has_time or not len(queries):
        return None
    model, owner = copy(recommender), owners(sequences.offsets)
    model.labels = None  # it ranks nothing
    frozen, counted = ({name: one for name, one in recommender.scorers.items() if (name in BY_NIGHT) == still} for still in (True, False))
    found = np.zeros(len(queries), dtype=np.int32)
    steps = min(LIVE_STEPS, max(MOST_ITEMS // max(sequences.n_items, 1), FEWEST_STEPS), len(queries))
    for part in np.array_split(np.argsort(queries.times, kind="stable"), steps):
        rows = np.sort(part)  # by user, whose histories are read in one pass
        known = _until(sequences, owner, int(queries.times[rows].min()))
        model.scorers = counted
        model.scorers = frozen | dict(model.fit(known.train(with_validation=True), known.n_items).scorers)
        asked = replace(queries.take(rows), histories=replace(histories.take(rows), links=known.links(with_validation=True)))
        found[rows] = ranks(model, asked, exclude_seen=exclude_seen).ranks
    metrics = per_query(found, queries.target_offsets)
    parts, many = parts_of_users(metrics, queries.users)
    return {"metrics": mean(metrics), "intervals": {name: interval(values, confidence, many) for name, values in parts.items()}}


def _until(sequences: Sequences, owner: IntArray, time: int) -> Sequences:
    """The sequences as if the test began at a time: what is known are all events before it."""
    known = np.bincount(owner[sequences.times < time], minlength=sequences.n_users)
    return replace(sequences, validation_end=sequences.offsets[:-1] + known)
