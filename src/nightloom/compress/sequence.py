"""The sequence model and the item vectors for the service, in the smallest precision that passes the gate.

The gate asks the model, rounded as it would serve, what a service was asked: before each of some positive events the user's history up to
then. It compares NDCG@10 of the final scores with those of the model as it was trained.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nightloom.core.files import events_at
from nightloom.core.queries import Query
from nightloom.core.streaming import IN_TIME
from nightloom.data.preparation.stored import look_up
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.rounding import matrices_of, rounded
from nightloom.packaging.serving_artefact import network_arrays
from nightloom.packaging.serving_precision import LADDER, SINGLE, Precision, Precisions, stored

MOST_LOST = 0.005
"""Share of NDCG@10 that rounding may cost."""
MOST, OF_A_USER, FEWEST = 2_000, 5, 100
"""Events that are asked about at most, those of one user, the latest, and events below which a difference would say nothing."""
K = 10
WORTH = 2_000_000
"""Bytes in float32 below which rounding does not pay: all of it stays in the processor's caches (`benchmarks/compression.md`)."""
log = logging.getLogger("nightloom.compress")


@dataclass(frozen=True)
class SequenceExport:
    """Sequence model and item vectors, as an artefact names them.

    Attributes:
        encoder: precision of the encoder's matrices.
        vectors: precision of the item vectors.
        bytes: of both as they are stored, with all else that the encoder needs.
        single_bytes: the same in float32.
        queries: that were asked; 0 where no events were at hand, and nothing is rounded.
        ndcg_at_10: of the model as it was trained.
        ndcg_lost: share of it that is lost.
        lists_kept: share of the ten best items that stay among them.
    """

    encoder: Precision
    vectors: Precision
    bytes: int
    single_bytes: int
    queries: int
    ndcg_at_10: float
    ndcg_lost: float
    lists_kept: float

    @property
    def precisions(self) -> Precisions:
        """Of the two parts."""
        return Precisions(self.encoder, self.vectors)

    @property
    def passes(self) -> bool:
        """Whether the gate lets it serve."""
        return self.precisions == SINGLE or (self.queries >= FEWEST and self.ndcg_lost < MOST_LOST)

    def said(self) -> dict[str, Any]:
        """What the artefact's manifest holds."""
        return asdict(self)


def sequence_export(bundle: Bundle, events: Path | None, *, compress: bool = True) -> SequenceExport:
    """The smallest precisions of a bundle that pass the gate; float32 where nothing is gained by less.

    Args:
        bundle: the model.
        events: see `SequenceGate`.
        compress: whether it may be rounded.
    """
    if compress and events is not None and single_bytes(bundle) >= WORTH:
        return SequenceGate(bundle, events).smallest()
    return SequenceGate(bundle, None).measured(SINGLE)


def single_bytes(bundle: Bundle) -> int:
    """Size of sequence model and item vectors in float32."""
    return sum(one.nbytes for one in network_arrays(bundle.recommender).values())


class SequenceGate:
    """What some users were to find next, asked of a model in any precision.

    Args:
        bundle: the model.
        events: canonical events.parquet, or the snapshot's folder; None: there is nothing to ask.
    """

    def __init__(self, bundle: Bundle, events: Path | None) -> None:
        self.bundle = bundle
        self.targets, self.queries = (np.zeros(0, np.int64), list[Query]()) if events is None else streamed(bundle, events)
        self.best = self._best(bundle.recommender)
        self.ndcg = _ndcg(self.best, self.targets)
        self._arrays = network_arrays(bundle.recommender)

    def measured(self, precisions: Precisions) -> SequenceExport:
        """The model in some precisions beside itself."""
        small, single = (sum(one.nbytes for one in stored(self._arrays, kept).values()) for kept in (precisions, SINGLE))
        if precisions == SINGLE:
            lost, kept = 0.0, 1.0
        else:
            best = self._best(as_served(self.bundle.recommender, precisions))
            lost = 1 - _ndcg(best, self.targets) / self.ndcg if self.ndcg else 0.0
            same = [len(np.intersect1d(one, other)) / max(len(one), 1) for one, other in zip(self.best, best, strict=True)]
            kept = float(np.mean(same)) if same else 1.0
        figures = (round(self.ndcg, 6), round(lost, 6), round(kept, 6))
        return SequenceExport(precisions.encoder, precisions.vectors, small, single, len(self.queries), *figures)

    def smallest(self) -> SequenceExport:
        """The smallest precisions that pass."""
        for precisions in LADDER:
            found = self.measured(precisions)
            log.info("sequence model: %s", asdict(found))
            if found.passes:
                break
        return found

    def _best(self, recommender: SequentialRecommender) -> NDArray[np.int64]:
        """The ten best items of each query, int64 [queries, 10], -1 where there are fewer."""
        step, found = 256, [np.zeros((0, K), np.int64)]
        for first in range(0, len(self.queries), step):
            histories = self.bundle.histories(self.queries[first : first + step])
            items = recommender.recommend(histories, K)[0]
            found.append(np.pad(items, ((0, 0), (0, K - items.shape[1])), constant_values=-1))
        return np.concatenate(found)


def streamed(bundle: Bundle, events: Path) -> tuple[NDArray[np.int64], list[Query]]:
    """For some users the items of their latest positive events, int64 [queries], and the query before each.

    Where the model was trained up to one time, only later events are asked about, as far as there are any.
    """
    import pyarrow.parquet as pq

    place = events_at(events)
    users = np.unique(pq.read_table(place, columns=["user_id"])["user_id"].to_numpy(zero_copy_only=False).astype(str))
    until = next((int(when) for name, when in bundle.meta.get("trained_until", {}).items() if name in IN_TIME and when), None)
    found = [list[tuple[int, Query]](), list[tuple[int, Query]]()]  # after training, and all
    for _, rows in look_up(place, np.random.default_rng(0).permutation(users).tolist(), bundle.meta).groupby("user_id"):
        items, events_, positive = rows["item_id"].tolist(), rows["event"].tolist(), rows["positive"].tolist()
        times = rows["second"].tolist() if "second" in rows else None
        asked = [number for number, liked in enumerate(positive) if liked and number and items[number] in bundle.index][-OF_A_USER:]
        for number in asked:
            now = None if times is None else times[number]
            before = number if times is None else next(place for place, time in enumerate(times) if time == now)
            if items[number] in items[:before]:
                continue  # it is left out of the answer
            query = Query(items[:before], times and times[:before], events_[:before], positive[:before], request_time=now)
            found[1].append((bundle.index[items[number]], query))
            if until is not None and now is not None and now > until:
                found[0].append(found[1][-1])
    chosen = (found[0] if len(found[0]) >= FEWEST else found[1])[:MOST]
    return np.array([target for target, _ in chosen], dtype=np.int64), [query for _, query in chosen]


def as_served(recommender: SequentialRecommender, precisions: Precisions) -> SequentialRecommender:
    """The model with weights rounded as they are stored and activations as the service rounds them."""
    found = rounded(recommender, precisions)
    if precisions.encoder == "int8":
        for one in matrices_of(found):
            one.register_forward_pre_hook(_round_input)
    return found


def _round_input(_: nn.Module, given: tuple[Tensor, ...]) -> Tensor:
    """What a layer reads, each row rounded to 255 steps of its own, as `nightloom.serving.model.int8_product` does."""
    (x,) = given
    step = x.abs().amax(-1, keepdim=True).clamp_min(1e-30) / 127
    return torch.floor(x / step + 0.5) * step


def _ndcg(best: NDArray[np.int64], targets: NDArray[np.int64]) -> float:
    """Mean NDCG@10 with one item to find."""
    row, place = np.nonzero(best == targets[:, None])
    return float((1 / np.log2(place + 2)).sum() / max(len(targets), 1)) if len(row) else 0.0
