"""The test of one protocol: what is asked, and what each row of the results says besides the rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from nightloom.core.asked import asked
from nightloom.core.ragged import owners
from nightloom.core.ranking import Ranked
from nightloom.core.sequences import Histories, Queries, Sequences
from nightloom.core.streaming import STREAMING, Prefixes, askable, queries_of
from nightloom.data.preparation.items import FeatureSpec, ItemFeatures
from nightloom.evaluation import slices
from nightloom.evaluation.fairness import categories_of
from nightloom.evaluation.rivals import Rival
from nightloom.models.scorers.popularity import positive_counts

ASKED = ("test_users", "test_queries", "test_rows", "without_history", "sampled_from")
"""Figures of how much is asked, which stage evaluate gives by protocol."""
SCHEMA = pa.schema(
    [
        ("family", pa.string()),
        ("protocol", pa.string()),
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("rank", pa.int32()),
        ("query", pa.int32()),
        ("time", pa.int64()),
        ("history", pa.int32()),
        ("slices", pa.string()),
        ("item_slice", pa.string()),
    ]
)
"""Columns of per_user.parquet. `query` tells a user's queries apart; `time` is that of the held-out event, in seconds since 1970 UTC."""


@dataclass(frozen=True)
class HeldOut:
    """The test of one protocol.

    Attributes:
        sequences: all events with the cutoffs of the split.
        queries: histories and held-out items.
        train: what the baselines learn from.
        popularity: int64 [items], positive events in `train`.
        masks: slice -> bool [n], which queries are in it.
        item_slice: object [rows], slice of each held-out item.
        user_ids: object [n], the user of each query.
        table: the columns of per_user.parquet that are the same for every family.
        categories: float64 [items, categories], each item's share of each; None where no column tells any.
    """

    sequences: Sequences
    queries: Queries
    train: Histories
    popularity: NDArray[np.int64]
    masks: dict[str, NDArray[np.bool_]]
    item_slice: NDArray[np.object_]
    user_ids: NDArray[np.object_]
    table: dict[str, Any]
    categories: NDArray[np.float64] | None = None

    @property
    def said(self) -> str:
        """What means are over, in words."""
        return asked(len(np.unique(self.queries.users)), len(self.queries))

    def figures(self, protocol: str, *, exclude_seen: bool) -> dict[str, Any]:
        """How much is asked: the figures of `ASKED`; see `evaluate`."""
        users, lengths = self.queries.users, self.queries.histories.lengths
        strangers = users[lengths == 0]
        there = int(askable(self.sequences, "test", exclude_seen=exclude_seen).sum()) if protocol == STREAMING else len(users)
        return {
            "test_users": len(np.unique(users)),
            "test_queries": len(users),
            "test_rows": len(self.queries.targets),
            "without_history": {"queries": len(strangers), "users": len(np.unique(strangers))},
            "sampled_from": there if there > len(users) else None,
        }

    def for_rival(self, rival: Rival, event_types: Sequence[str]) -> HeldOut:
        """The test as a registered model can be asked: by its own event names, without what it may have learned from."""
        rows = ~rival.learned
        queries, kept = self.queries.only(rows)
        table = {name: column[rows] for name, column in self.table.items()}
        masks = {name: mask[kept] for name, mask in self.masks.items()}
        named = rival.bundle.event_names.recoded(queries, event_types)
        item_slice, user_ids = self.item_slice[rows], self.user_ids[kept]
        return HeldOut(self.sequences, named, self.train, self.popularity, masks, item_slice, user_ids, table, self.categories)

    def rows(self, family: str, protocol: str, ranked: Ranked) -> pa.Table:
        """One family's rows of per_user.parquet."""
        n = len(ranked.ranks)
        columns = self.table | {
            "family": np.full(n, family, dtype=object),
            "protocol": np.full(n, protocol, dtype=object),
            "rank": pa.array(ranked.ranks, mask=ranked.ranks == 0),
            "time": pa.array(self.table["time"], mask=self.table["time"] == 0),
        }
        arrays = {name: pa.array(column) for name, column in columns.items()}
        return pa.table([arrays[entry.name].cast(entry.type) for entry in SCHEMA], schema=SCHEMA)


def held_out(protocol: str, prepared: Path, items: pd.DataFrame, users: pd.DataFrame, *, exclude_seen: bool) -> HeldOut:
    """The test of one protocol; items and users are the tables of stage prepare."""
    sequences = Sequences.load(prepared / f"sequences_{protocol}.npz")
    queries = queries_of(protocol, sequences, "test", exclude_seen=exclude_seen)
    train = sequences.train(with_validation=True)  # as the model's scorers do, so no baseline knows less
    popularity = positive_counts(train, sequences.n_items)
    lengths = queries.histories.lengths
    who, row_of = np.unique(queries.users, return_inverse=True)
    attributes = users.iloc[who].reset_index(drop=True)
    masks = slices.event_slices(queries, sequences) if protocol == STREAMING else slices.user_slices(lengths)
    masks |= {name: mask[row_of] for name, mask in slices.attribute_slices(attributes).items()}
    rows = owners(queries.target_offsets)
    item_slice = slices.item_slices(popularity)[queries.targets]
    user_ids = attributes["user_id"].to_numpy(dtype=object)[row_of]
    table = {
        "user_id": user_ids[rows],
        "item_id": items["item_id"].to_numpy(dtype=object)[queries.targets],
        "query": _numbers(queries)[rows],
        "time": queries.times,
        "history": lengths[rows],
        "slices": slices.labels(masks, len(queries))[rows],
        "item_slice": item_slice,
    }
    features, spec = ItemFeatures.load(prepared / "item_features.npz"), FeatureSpec.load(prepared / "feature_spec.json")
    categories = categories_of(features, spec)
    return HeldOut(sequences, queries, train, popularity, masks, item_slice, user_ids, table, categories and categories[1])


def _numbers(queries: Queries) -> NDArray[np.int64]:
    """A number of each query that no other of its user has, int64 [n]; 0 where a user has one.

    Of events that are asked one by one it is how many came before, so that another night numbers the same event alike. Those of one
    second, which know the same events, count on from there.
    """
    if not isinstance(queries.histories, Prefixes):
        return np.zeros(len(queries), dtype=np.int64)
    stop, place = queries.histories.stop, np.arange(len(queries))
    begins = np.diff(stop, prepend=-1) != 0  # by user and time, so equal ones stand together
    return queries.histories.lengths + place - np.maximum.accumulate(np.where(begins, place, 0))
