"""Stage evaluate: ranks the model, the current champion and the baselines on the same held-out users."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nightloom.config import EvaluationConfig, PromotionConfig
from nightloom.core.files import write_json
from nightloom.core.metrics import mean, parts_of_users, per_query
from nightloom.core.ranking import Ranked, ranks
from nightloom.core.recommender import Recommender
from nightloom.core.sequences import Histories
from nightloom.core.streaming import STREAMING
from nightloom.encoders.vectors import Vectors
from nightloom.evaluation import drift, lists, plots, slices
from nightloom.evaluation.fairness import group_gaps, miscalibration
from nightloom.evaluation.held_out import ASKED, SCHEMA, HeldOut, held_out
from nightloom.evaluation.labels import measure_labels
from nightloom.evaluation.live import measure_live
from nightloom.evaluation.membership import measure_membership
from nightloom.evaluation.movers import movers
from nightloom.evaluation.newcomers import measure_newcomers
from nightloom.evaluation.reranker import measure_probabilities
from nightloom.evaluation.rivals import CHAMPION, Rival, load_rival
from nightloom.evaluation.samples import USERS, pick, sample_lists
from nightloom.evaluation.statistics import interval, paired
from nightloom.evaluation.trade_off import measure_trade_off
from nightloom.models.baselines.named import build
from nightloom.models.heads.reranker import CANDIDATES
from nightloom.packaging.bundle import Bundle
from nightloom.training.validation import sample
from nightloom.training.warm_start import SEARCH_FILE


@dataclass
class Results:
    """What was measured so far, by family and protocol."""

    metrics: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    intervals: dict[str, dict[str, dict[str, tuple[float, float]]]] = field(default_factory=dict)
    slices: dict[str, dict[str, dict[str, dict[str, Any]]]] = field(default_factory=dict)

    def of(self, kind: str, protocol: str) -> dict[str, Any]:
        """One kind of result under one protocol, by family."""
        return {family: found[protocol] for family, found in getattr(self, kind).items() if protocol in found}


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
        bundles: protocol -> bundle of tonight's model; beside it are its `curves.json` and, it may be, the weights before the refit.
        rivals: name (champion, anchor) -> bundle of a registered model, ranked under the first protocol. Held-out events that it may have
            learned from are left out of its results.
        pretrained: folder of stage load_pretrained, for items that a rival does not know.
        folder: gets `per_user.parquet`, `metrics.json`, `intervals.json`, `slices.json`, `sample_lists.json`, `movers.json` (null
            without a champion) and `plots/*.png`.
        progress: gets a line in words for each model that was ranked.
        evaluation: protocols, baselines, and whether items of the history are left out.
        promotion: the gate's metric and confidence, which intervals and plots share.
        seed: of the baselines that draw, and of the sample of users.

    Returns:
        Figures by protocol: `test_users`, `test_queries`, `test_rows` (held-out items), `without_history` (`queries` and `users` that
        were asked without any history) and `sampled_from` (events of which the queries are a sample; None where they are all).
        `metrics`: family -> protocol -> metric. `live`: protocol -> `metrics` and `intervals` of the model with scorers kept up to date
        (see `measure_live`). Where the model has a re-ranker, `probabilities` by protocol (see `measure_probabilities`); with a label
        head `label_probabilities` (see `measure_labels`). `membership` by protocol (see `measure_membership`).
        `fairness` by protocol: the gate's metric by group of people (see `group_gaps`). `trade_off` by protocol: what a popularity penalty
        costs and gives (see `measure_trade_off`). `newcomers` by protocol: lists without a history (see `measure_newcomers`).
        `tail` by protocol: the share of tail items in lists of ten, `value`, `low` and `high`.
        `rivals`: name -> `Rival.figures`. `drift`: histograms that the watch over nights compares, of the catalogue's `texts`, and of the
        `scores` of the model and the champion under the first protocol (see `nightloom.evaluation.drift`).
    """
    items = pd.read_parquet(prepared / "items.parquet")
    users = pd.read_parquet(prepared / "users.parquet")
    results = Results()
    figures: dict[str, Any] = {
        **{name: {} for name in ASKED},
        "metrics": results.metrics,
        "live": {},
        "probabilities": {},
        "label_probabilities": {},
        "fairness": {},
        "membership": {},
        "trade_off": {},
        "newcomers": {},
        "tail": {},
        "rivals": {},
        "drift": {},
    }
    read = Vectors.load(pretrained)
    if (texts := drift.of_texts(read.text, read.has_text)) is not None:
        figures["drift"]["texts"] = texts
    with pq.ParquetWriter(folder / "per_user.parquet", SCHEMA) as writer:
        for protocol in evaluation.protocols:
            held = held_out(protocol, prepared, items, users, exclude_seen=evaluation.exclude_seen)
            for name, figure in held.figures(protocol, exclude_seen=evaluation.exclude_seen).items():
                figures[name][protocol] = figure
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
                vectors[family] = per_query(ranked.ranks, ranked.offsets)
                if family in (bundle.recommender.family, CHAMPION) and len(test.queries) == len(held.queries):
                    tops[family] = ranked.top
                note(results, family, protocol, test, ranked, vectors[family], promotion.confidence)
                if protocol == evaluation.protocols[0] and family in (bundle.recommender.family, CHAMPION):
                    sure = drift.of_scores(model, test.queries, exclude_seen=evaluation.exclude_seen, seed=seed)
                    whose = "champion's scores" if family == CHAMPION else "scores"
                    figures["drift"] |= {} if sure is None else {whose: sure}
                if family == bundle.recommender.family:
                    figures["fairness"][protocol] = group_gaps(
                        vectors[family][promotion.metric],
                        test.queries.users,
                        test.masks,
                        test.queries.histories.lengths,
                        confidence=promotion.confidence,
                        resamples=promotion.resamples,
                        seed=seed,
                    )
                    figures["tail"][protocol] = tail_share(ranked, test, promotion.confidence)
                writer.write_table(test.rows(family, protocol, ranked))
                if progress:
                    progress(f"{protocol}: {family} ranked for {test.said}")
            if protocol == evaluation.protocols[0]:
                rows, mine = pick(held.queries, USERS, seed), tops[bundle.recommender.family]
                sample_of_users = sample_lists(rows, held.user_ids, bundle, mine, tops.get(CHAMPION))
                write_json(folder / "sample_lists.json", {"protocol": protocol} | sample_of_users)
                moved = (
                    movers(bundle, others[CHAMPION], held.queries, exclude_seen=evaluation.exclude_seen, seed=seed)
                    if CHAMPION in others
                    else None
                )
                write_json(folder / "movers.json", moved)
            for name, figure in _of_the_model(bundle, held, protocol, folder / "plots", evaluation, promotion, seed).items():
                figures[name][protocol] = figure
            _draw(
                promotion,
                evaluation.baselines,
                protocol,
                results,
                vectors,
                held,
                bundle.recommender.family,
                bundles[protocol].parent / "curves.json",
                folder / "plots",
            )
    write_json(folder / "metrics.json", results.metrics)
    write_json(folder / "intervals.json", results.intervals)
    write_json(folder / "slices.json", results.slices)
    return figures


def _of_the_model(
    bundle: Bundle,
    held: HeldOut,
    protocol: str,
    plots_folder: Path,
    evaluation: EvaluationConfig,
    promotion: PromotionConfig,
    seed: int,
) -> dict[str, Any]:
    """What only tonight's model has: probabilities of its heads, the membership attack, and the figure of scorers kept up to date."""
    model, found = bundle.recommender, dict[str, Any]()
    if model.reranker is not None and len(held.queries):
        some = sample(held.queries, seed, held.sequences.n_items)
        title, place = f"Probabilities of the {CANDIDATES} best of {len(some):,} queries, {protocol}", f"calibration_{protocol}.png"
        found["probabilities"] = measure_probabilities(model, some, plots_folder / place, title)
    if model.labels is not None:
        title, place = f"Probabilities of a positive event, {protocol}", f"calibration_of_labels_{protocol}.png"
        found["label_probabilities"] = measure_labels(model, held.sequences, plots_folder / place, title)
    search = bundle.folder.parent / SEARCH_FILE
    found["trade_off"] = measure_trade_off(
        model,
        held.queries,
        held.popularity,
        exclude_seen=evaluation.exclude_seen,
        confidence=promotion.confidence,
        resamples=promotion.resamples,
        seed=seed,
    )
    found["newcomers"] = measure_newcomers(
        model,
        held.queries,
        held.user_ids,
        getattr(model.config, "exploration", 0.0),  # a model of before has none
        confidence=promotion.confidence,
        resamples=promotion.resamples,
    )
    member = measure_membership(model, held.sequences, protocol, search, exclude_seen=evaluation.exclude_seen, seed=seed)
    found |= {"membership": member} if member else {}
    if protocol == STREAMING:
        asked = held.sequences, held.queries
        live = measure_live(model, *asked, exclude_seen=evaluation.exclude_seen, confidence=promotion.confidence)
        found |= {"live": live} if live else {}
    return found


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
    if held.categories is not None:
        apart = miscalibration(ranked.top[:, :10], held.queries.histories, held.categories)
        shape |= {} if apart is None else {"miscalibration_at_10": apart}
    results.metrics.setdefault(family, {})[protocol] = mean(vectors) | shape
    parts, many = parts_of_users(vectors, held.queries.users)
    spans = {name: interval(values, confidence, many) for name, values in parts.items() if len(values)}
    results.intervals.setdefault(family, {})[protocol] = spans
    results.slices.setdefault(family, {})[protocol] = slices.measure(ranked, held.queries.users, held.masks, held.item_slice)


def tail_share(ranked: Ranked, held: HeldOut, confidence: float) -> dict[str, float]:
    """The mean share of tail items in lists of ten, with its interval; empty without queries."""
    if not len(held.queries):
        return {}
    shares = {"tail": lists.tail_shares(ranked.top[:, :10], held.popularity)}
    parts, many = parts_of_users(shares, held.queries.users)
    low, high = interval(parts["tail"], confidence, many)
    return {"value": float(shares["tail"].mean()), "low": low, "high": high}


def _draw(
    gate: PromotionConfig,
    baselines: Sequence[str],
    protocol: str,
    results: Results,
    vectors: Mapping[str, Mapping[str, NDArray[np.float64]]],
    held: HeldOut,
    model: str,
    curves: Path,
    folder: Path,
) -> None:
    """All plots of one protocol."""
    epochs = json.loads(curves.read_text(encoding="utf-8"))
    if epochs:
        plots.learning_curve(folder / f"learning_curve_{protocol}.png", epochs, f"Training, {protocol}")
    if not len(held.queries):
        return
    test = f"{protocol}, {held.said}"
    metrics, metric = results.of("metrics", protocol), gate.metric
    plots.models(folder / f"models_{protocol}.png", metrics, results.of("intervals", protocol), model, f"Model and baselines, {test}")
    ranked = [name for name in baselines if name in metrics]
    if ranked:
        best = max(ranked, key=lambda name: metrics[name][metric])
        by_family = results.of("slices", protocol)
        path = folder / f"slices_{protocol}.png"
        plots.slices(path, by_family[model], by_family[best], (model, f"{best} (best baseline)"), metric, f"By slice, {test}")
    if CHAMPION in vectors and len(vectors[CHAMPION][metric]) == len(held.queries):
        (mine, many), (its, _) = (parts_of_users(vectors[name], held.queries.users) for name in (model, CHAMPION))
        found = paired(mine, its, queries=many, confidence=gate.confidence, resamples=gate.resamples)
        plots.differences(folder / f"champion_{protocol}.png", found, gate.confidence, gate.margin, f"Challenger against champion, {test}")
