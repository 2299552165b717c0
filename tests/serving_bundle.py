"""Bundles with random weights and every part that the service serves: scorers, event types, times, both heads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from nightloom.config import ModelConfig
from nightloom.core.calibration import Line
from nightloom.core.queries import Query
from nightloom.core.ragged import offsets_of
from nightloom.core.sequences import Histories
from nightloom.data.preparation.items import FeatureSpec, compose_text
from nightloom.encoders.text import TextEncoder
from nightloom.models.heads.item_counters import ItemCounters
from nightloom.models.heads.label_counters import LabelCounters
from nightloom.models.heads.label_probabilities import LabelProbabilities
from nightloom.models.heads.net import HeadNet
from nightloom.models.heads.reranker import COUNTERS, Numbers, Reranker
from nightloom.models.scorers.als import ALS
from nightloom.models.scorers.popularity import positive_counts
from nightloom.models.scorers.popularity_penalty import PopularityPenalty
from nightloom.models.scorers.registry import CLASSES, expect, fit_scorers
from nightloom.models.sequential.content_fusion import ItemContent
from nightloom.models.sequential.network import SequentialNetwork, Shape
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.packaging.write import write_bundle
from tests.tiny_models import WORDS

N_ITEMS, TEXT_DIM, START, DAY = 150, 12, 1_700_000_000, 86_400
EVENTS = ("view", "buy", "return")
"""A purchase is positive; what was returned is not shown again either."""
UNKNOWN_ITEMS = 20
"""The last items of the catalogue, of which nobody has an event."""


def known_histories(users: int = 40, seed: int = 0, *, timed: bool = True) -> Histories:
    """Histories of a few users over the first items, in order of time."""
    random = np.random.default_rng(seed)
    lengths = random.integers(2, 30, users)
    total = int(lengths.sum())
    times = np.concatenate([np.sort(START - random.integers(0, 100 * DAY, n)) for n in lengths])
    codes = random.integers(0, len(EVENTS), total).astype(np.int16)
    return Histories(
        offsets_of(lengths),
        random.integers(0, N_ITEMS - UNKNOWN_ITEMS, total).astype(np.int32),
        times if timed else np.zeros(total, np.int64),
        codes,
        codes == 1,
        np.zeros(users, np.int64),
        seen=codes > 0,
    )


def serving_bundle(
    folder: Path,
    *,
    scorers: Sequence[str] = tuple(CLASSES),
    reranker: bool = False,
    labels: bool = False,
    timed: bool = True,
    use_time: bool = True,
    max_history: int = 200,
    adapter: int = 0,
    newcomers: bool = True,
    busiest_day: int = 5000,
    min_support: int = 1,
    by_day: bool = False,
    encoder: str | None = None,
    penalty: float = 0.0,
    exploration: float = 0.0,
) -> Path:
    """Write a bundle, the same each time for the same arguments, and give its folder back.

    With `by_day`, counters hold days, as those that training writes do. With `newcomers`,
    fusion weights without a history differ from those for long ones, in another way for each scorer. With `encoder`, a
    pretrained model by name or folder, titles have words of it, and text vectors are its own.
    """
    source = folder.with_name(f"{folder.name}-source")
    source.mkdir(parents=True)
    random = np.random.default_rng(1)
    items = pd.DataFrame(
        {
            "item_id": [f"i{row}" for row in range(N_ITEMS)],
            "title": [f"Title {row}" for row in range(N_ITEMS)],
            "genres": random.choice(["red|blue", "blue", "green|red", None], N_ITEMS),
            "price": random.normal(10, 3, N_ITEMS),
        }
    ).astype({"genres": object})
    kinds, text_dim = {"title": "text", "genres": "tags", "price": "number"}, TEXT_DIM
    if encoder is not None:
        items["title"] = [f"{' '.join(random.choice(WORDS, 3))} {row}" for row in range(N_ITEMS)]
    texts = items["title"] if encoder is None else compose_text(items, kinds)
    items.assign(text=texts).to_parquet(source / "items.parquet", index=False)
    spec = FeatureSpec.fit(items, kinds)
    spec.save(source / "feature_spec.json")
    meta = {
        "event_types": EVENTS,
        "default_event_type": "buy",
        "prepare": {"positive_events": ["buy"], "seen_events": ["buy", "return"], "max_user_events_per_day": busiest_day},
        "has_time": timed,
        "latest_event": START if timed else None,
    }
    (source / "meta.json").write_text(json.dumps(meta))
    known = known_histories(timed=timed)
    has_text = random.random(N_ITEMS) < 0.9
    config = ModelConfig(dim=16, blocks=2, heads=2, max_history=max_history, use_time=use_time, exploration=exploration)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        text = torch.randn(N_ITEMS, TEXT_DIM).numpy()
        if encoder is not None:
            reads = TextEncoder.load(encoder)
            text, text_dim, has_text = reads.encode(texts.tolist()), reads.dim, np.ones(N_ITEMS, dtype=bool)
            said = {"model": encoder, "sha256": reads.digest, "pooling": reads.pooling, "max_tokens": reads.max_tokens, "dim": reads.dim}
            (source / "pretrained.json").write_text(json.dumps(said))
        content = ItemContent.build(spec.encode(items), text, has_text, np.arange(1, N_ITEMS + 1))
        shape = Shape(
            text_dim, spec.n_codes, content.numbers.shape[1], N_ITEMS, len(EVENTS), timed, adapter=adapter, labelled=labels
        )  # fmt: skip
        net = SequentialNetwork(config, shape)
        with torch.no_grad():
            net.fusion.whiten.fit(content.text[content.has_text])
            for parameter in net.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.3)
        net.requires_grad_(False)
        members = ("network", *scorers)
        numbers = Numbers.fit(torch.randn(500, 1 + len(members) + len(COUNTERS)).numpy())
        head = HeadNet(3, 0, numbers.width, 8, 0.0)
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.normal_(std=0.3)
    fitted = fit_scorers(list(scorers), known, content, min_support)
    if ALS.family in fitted:  # so little data leave no factors by the default regularisation
        fitted[ALS.family] = ALS(factors=12, regularization=0.1, recency=0.99, memory=100).fit(known, N_ITEMS)
        expect(fitted.values(), content)
    counters, labelled = ItemCounters.of(known, N_ITEMS, 60), LabelCounters.of(known, N_ITEMS, 60)
    if by_day:
        counters, labelled = counters.by_day(), labelled.by_day()
    write_bundle(
        SequentialRecommender(
            config,
            shape,
            net,
            content,
            fitted,
            {name: 0.7 / (place + 2) / max(len(scorers), 1) for place, name in enumerate(scorers)},
            Reranker(head, numbers, Line(0.8, -1.0), Line(0.1, -3.0), members, True, counters) if reranker else None,
            LabelProbabilities(Line(0.5, -0.2), labelled) if labels else None,
            {name: 0.9 * (place + 1) / (len(scorers) * (len(scorers) + 1) / 2) for place, name in enumerate(scorers)}
            if newcomers
            else None,
            PopularityPenalty.of(positive_counts(known, N_ITEMS), penalty, 0.1 if reranker else 1.0) if penalty else None,
        ),
        source,
        folder,
        source,
    )
    return folder


def some_query(events: int, seed: int = 0, *, timed: bool = True, friends: int = 3) -> Query:
    """A query with a history of so many events, a few of them of items that nobody knows."""
    random = np.random.default_rng([seed, events])
    times = np.sort(START - random.integers(0, 50 * DAY, events)).tolist()
    return Query(
        [f"i{item}" for item in random.integers(0, N_ITEMS + 5, events)],
        times if timed else None,
        [EVENTS[code] for code in random.integers(0, len(EVENTS), events)],
        friends=[[f"i{item}" for item in random.integers(0, N_ITEMS, 6)] for _ in range(friends)],
        request_time=START + 100 if timed else None,
    )


def with_positive(query: Query, seed: int = 0) -> Query:
    """The same query with events said to be positive or not."""
    return replace(query, positive=(np.random.default_rng(seed).random(len(query.history)) < 0.6).tolist())
