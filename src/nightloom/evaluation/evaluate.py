"""Stage evaluate: ranks the model, the current champion and the baselines on the same held-out users."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nightloom.config import EvaluationConfig, PromotionConfig
from nightloom.core.files import write_json
from nightloom.core.metrics import mean, per_user
from nightloom.core.ragged import owners
from nightloom.core.ranking import Ranked, ranks
from nightloom.core.recommender import Recommender
from nightloom.core.sequences import Histories, Queries, Sequences
from nightloom.evaluation import lists, plots, slices
from nightloom.evaluation.labels import measure_labels
from nightloom.evaluation.reranker import measure_probabilities
from nightloom.evaluation.rivals import CHAMPION, Rival, load_rival
from nightloom.evaluation.samples import USERS, pick, sample_lists
from nightloom.evaluation.statistics import interval, paired
from nightloom.models.baselines.named import build
from nightloom.models.heads.reranker import CANDIDATES
from nightloom.models.scorers.popularity import positive_counts
from nightloom.packaging.bundle import Bundle

SCHEMA = pa.schema(
    [
        ("family", pa.string()),
        ("protocol", pa.string()),
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("rank", pa.int32()),
        ("history", pa.int32()),
        ("slices", pa.string()),
        ("item_slice", pa.string()),
    ]
)
"""Columns of per_user.parquet."""


@dataclass
class Results:
    """What was measured so far, by family and protocol."""

    metrics: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    intervals: dict[str, dict[str, dict[str, tuple[float, float]]]] = field(default_factory=dict)
    slices: dict[str, dict[str, dict[str, dict[str, Any]]]] = field(default_factory=dict)

    def of(self, kind: str, protocol: str) -> dict[str, Any]:
        """One kind of result under one protocol, by family."""
        return {family: found[protocol] for family, found in getattr(self, kind).items() if protocol in found}


@dataclass(frozen=True)
class HeldOut:
    """The test of one protocol: its queries, and what each row of the results says besides the rank.

    Attributes:
        queries: histories and held-out items.
        train: what the baselines learn from.
        popularity: int64 [items], positive events in `train`.
        user_masks: user slice -> bool [n].
        item_slice: object [rows], slice of each held-out item.
        user_ids: object [n], the user of each query.
        table: the columns of per_user.parquet that are the same for every family.
    """

    queries: Queries
    train: Histories
    popularity: NDArray[np.int64]
    user_masks: dict[str, NDArray[np.bool_]]
    item_slice: NDArray[np.object_]
    user_ids: NDArray[np.object_]
    table: dict[str, Any]

    def for_rival(self, rival: Rival, event_types: Sequence[str]) -> HeldOut:
        """The test as a registered model can be asked: by its own event names, without what it may have learned from."""
        rows = ~rival.learned
        queries, kept = self.queries.only(rows)
        table = {name: column[rows] for name, column in self.table.items()}
        masks = {name: mask[kept] for name, mask in self.user_masks.items()}
        named = rival.bundle.event_names.recoded(queries, event_types)
        return HeldOut(named, self.train, self.popularity, masks, self.item_slice[rows], self.user_ids[kept], table)


def evaluate(
    prepared: Path,
    bundles: Mapping[str, Path],
    rivals: Mapping[str, Path],
    pretrained: Path,
    folder: Path,
    progress: Callable[[str], None] | None = None,
    *,
    evaluation: EvaluationConfig,
    promotion: PromotionConfig,
    seed: int,
) -> dict[str, Any]:
    """Rank the model, its rivals and the baselines over the whole catalogue.

    Baselines learn from all events before the test. The validation part is included, since the model's scorers learn from it too.

    Args:
        prepared: folder of stage prepare.
        bundles: protocol -> bundle of tonight's model; each bundle has its `curves.json` beside it.
        rivals: name (champion, anchor) -> bundle of a registered model, ranked under the first protocol. Held-out events that it may have
            learned from are left out of its results.
        pretrained: folder of stage load_pretrained, for items that a rival does not know.
        folder: gets `per_user.parquet`, `metrics.json`, `intervals.json`, `slices.json`, `sample_lists.json` and `plots/*.png`.
        progress: gets a line in words for each model that was ranked.
        evaluation: protocols, baselines, and whether items of the history are left out.
        promotion: the gate's metric and confidence, which intervals and plots share.
        seed: of the baselines that draw, and of the sample of users.

    Returns:
        Figures: `test_users` and `test_rows` by protocol, and `metrics` (family -> protocol -> metric). Where the model has a
        re-ranker, `probabilities` by protocol (see `measure_probabilities`); with a label head `label_probabilities` (see
        `measure_labels`). `rivals`: name -> `Rival.figures`.
    """
    items = pd.read_parquet(prepared / "items.parquet")
    users = pd.read_parquet(prepared / "users.parquet")
    results = Results()
    figures: dict[str, Any] = {
        "test_users": {},
        "test_rows": {},
        "metrics": results.metrics,
        "probabilities": {},
        "label_probabilities": {},
        "rivals": {},
    }
    with pq.ParquetWriter(folder / "per_user.parquet", SCHEMA) as writer:
        for protocol in evaluation.protocols:
            held = held_out(protocol, prepared, items, users, exclude_seen=evaluation.exclude_seen)
            figures["test_users"][protocol], figures["test_rows"][protocol] = len(held.queries), len(held.queries.targets)
            bundle = Bundle.load(bundles[protocol])
            places = rivals if protocol == evaluation.protocols[0] else {}
            others = {name: load_rival(place, protocol, items, pretrained, held.queries.times) for name, place in places.items()}
            figures["rivals"] |= {name: one.figures() for name, one in others.items()}
            vectors: dict[str, dict[str, NDArray[np.float64]]] = {}
            tops: dict[str, NDArray[np.int32]] = {}
            for family, model in _families(bundle, others, held.train, evaluation.baselines, seed):
                test = held
                if family in others:
                    test = held.for_rival(others[family], bundle.meta["event_types"])
                    if not len(test.queries):
                        continue  # it has learned from all of them
                ranked = ranks(model, test.queries, exclude_seen=evaluation.exclude_seen, name=family)
                vectors[family] = per_user(ranked.ranks, ranked.offsets)
                if family in (bundle.recommender.family, CHAMPION) and len(test.queries) == len(held.queries):
                    tops[family] = ranked.top
                note(results, family, protocol, test, ranked, vectors[family], promotion.confidence)
                writer.write_table(rows_of(test, family, protocol, ranked))
                if progress:
                    progress(f"{protocol}: {family} ranked for {len(test.queries):,} users")
            if protocol == evaluation.protocols[0]:
                rows, mine = pick(held.queries, USERS, seed), tops[bundle.recommender.family]
                sample = sample_lists(rows, held.user_ids, bundle, mine, tops.get(CHAMPION))
                write_json(folder / "sample_lists.json", {"protocol": protocol} | sample)
            if bundle.recommender.reranker is not None and len(held.queries):
                title = f"Probabilities of the {CANDIDATES} best of {len(held.queries):,} users, {protocol}"
                place = folder / "plots" / f"calibration_{protocol}.png"
                figures["probabilities"][protocol] = measure_probabilities(bundle.recommender, held.queries, place, title)
            if bundle.recommender.labels is not None:
                place = folder / "plots" / f"calibration_of_labels_{protocol}.png"
                sequences = Sequences.load(prepared / f"sequences_{protocol}.npz")
                figures["label_probabilities"][protocol] = measure_labels(
                    bundle.recommender, sequences, place, f"Probabilities of a positive event, {protocol}"
                )
            _draw(
                promotion,
                evaluation.baselines,
                protocol,
                results,
                vectors,
                bundle.recommender.family,
                bundles[protocol].parent / "curves.json",
                folder / "plots",
            )
    write_json(folder / "metrics.json", results.metrics)
    write_json(folder / "intervals.json", results.intervals)
    write_json(folder / "slices.json", results.slices)
    return figures


def held_out(protocol: str, prepared: Path, items: pd.DataFrame, users: pd.DataFrame, *, exclude_seen: bool) -> HeldOut:
    """The test of one protocol; items and users are the tables of stage prepare."""
    sequences = Sequences.load(prepared / f"sequences_{protocol}.npz")
    queries = sequences.queries("test", exclude_seen=exclude_seen)
    train = sequences.train(with_validation=True)  # as the model's scorers do, so no baseline knows less
    popularity = positive_counts(train, sequences.n_items)
    lengths = queries.histories.lengths
    who = users.iloc[queries.users].reset_index(drop=True)
    masks = slices.user_slices(lengths, who)
    rows = owners(queries.target_offsets)
    item_slice = slices.item_slices(popularity)[queries.targets]
    user_ids = who["user_id"].to_numpy(dtype=object)
    table = {
        "user_id": user_ids[rows],
        "item_id": items["item_id"].to_numpy(dtype=object)[queries.targets],
        "history": lengths[rows],
        "slices": slices.labels(masks, len(queries))[rows],
        "item_slice": item_slice,
    }
    return HeldOut(queries, train, popularity, masks, item_slice, user_ids, table)


def _families(
    bundle: Bundle,
    rivals: Mapping[str, Rival],
    train: Histories,
    baselines: Sequence[str],
    seed: int,
) -> Iterator[tuple[str, Recommender]]:
    """Each family with its recommender, made one after the other, so that only one is in memory."""
    yield bundle.recommender.family, bundle.recommender
    yield from ((name, rival.model) for name, rival in rivals.items())
    for name in baselines:
        yield name, build(name, seed).fit(train, bundle.recommender.n_items)


def note(
    results: Results,
    family: str,
    protocol: str,
    held: HeldOut,
    ranked: Ranked,
    vectors: Mapping[str, NDArray[np.float64]],
    confidence: float,
) -> None:
    """Add one family's results under one protocol."""
    shape = lists.measure(ranked.top, held.queries.histories, held.popularity)
    results.metrics.setdefault(family, {})[protocol] = mean(vectors) | shape
    spans = {name: interval(values, confidence) for name, values in vectors.items() if len(values)}
    results.intervals.setdefault(family, {})[protocol] = spans
    results.slices.setdefault(family, {})[protocol] = slices.measure(ranked, held.user_masks, held.item_slice)


def rows_of(held: HeldOut, family: str, protocol: str, ranked: Ranked) -> pa.Table:
    """One family's rows of per_user.parquet."""
    n = len(ranked.ranks)
    columns = held.table | {
        "family": np.full(n, family, dtype=object),
        "protocol": np.full(n, protocol, dtype=object),
        "rank": pa.array(ranked.ranks, mask=ranked.ranks == 0),
    }
    arrays = {name: pa.array(column) for name, column in columns.items()}
    return pa.table([arrays[entry.name].cast(entry.type) for entry in SCHEMA], schema=SCHEMA)


def _draw(
    gate: PromotionConfig,
    baselines: Sequence[str],
    protocol: str,
    results: Results,
    vectors: Mapping[str, Mapping[str, NDArray[np.float64]]],
    model: str,
    curves: Path,
    folder: Path,
) -> None:
    """All plots of one protocol."""
    epochs = json.loads(curves.read_text(encoding="utf-8"))
    if epochs:
        plots.learning_curve(folder / f"learning_curve_{protocol}.png", epochs, f"Training, {protocol}")
    users = len(vectors[model][gate.metric])
    if not users:
        return
    test = f"{protocol}, {users:,} held-out users"
    metrics, metric = results.of("metrics", protocol), gate.metric
    plots.models(folder / f"models_{protocol}.png", metrics, results.of("intervals", protocol), model, f"Model and baselines, {test}")
    ranked = [name for name in baselines if name in metrics]
    if ranked:
        best = max(ranked, key=lambda name: metrics[name][metric])
        by_family = results.of("slices", protocol)
        path = folder / f"slices_{protocol}.png"
        plots.slices(path, by_family[model], by_family[best], (model, f"{best} (best baseline)"), metric, f"By slice, {test}")
    if CHAMPION in vectors and len(vectors[CHAMPION][metric]) == users:
        found = paired(vectors[model], vectors[CHAMPION], confidence=gate.confidence, resamples=gate.resamples)
        plots.differences(folder / f"champion_{protocol}.png", found, gate.confidence, gate.margin, f"Challenger against champion, {test}")
