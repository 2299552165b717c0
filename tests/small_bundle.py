"""A bundle with random weights over ten titled items, made in milliseconds, and a small night."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from nightloom.config import ModelConfig, RunConfig, config_from_dict
from nightloom.core.calibration import Line
from nightloom.core.sequences import Histories
from nightloom.data.preparation.items import FeatureSpec
from nightloom.models.heads.item_counters import ItemCounters
from nightloom.models.heads.label_counters import LabelCounters
from nightloom.models.heads.label_probabilities import LabelProbabilities
from nightloom.models.heads.net import HeadNet
from nightloom.models.heads.reranker import COUNTERS, Numbers, Reranker
from nightloom.models.scorers.registry import CLASSES, fit_scorers
from nightloom.models.sequential.content_fusion import ItemContent
from nightloom.models.sequential.network import SequentialNetwork, Shape
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.write import write_bundle

N_ITEMS = 10


def small_config(name: str = "shop") -> RunConfig:
    """The config of a made-up shop."""
    return config_from_dict({"name": name, "data": {"events": "events.csv"}})


def small_bundle(folder: Path, first: Sequence[str] = ()) -> Path:
    """Write a bundle whose items are `i0` to `i9` and give the folder back; `first` are other ids for the first of them."""
    source = folder.with_name(f"{folder.name}-source")
    source.mkdir(parents=True)
    ids = [*first, *(f"i{row}" for row in range(len(first), N_ITEMS))]
    items = pd.DataFrame({"item_id": ids, "title": [f"Title [{row}]" for row in range(N_ITEMS)]})
    items.assign(text=items["title"]).to_parquet(source / "items.parquet", index=False)
    spec = FeatureSpec.fit(items, {"title": "text"})
    spec.save(source / "feature_spec.json")
    rules = small_config().prepare.model_dump(mode="json")
    meta = {"event_types": ["buy"], "default_event_type": "buy", "prepare": rules, "rare_items": [], "has_time": True}
    (source / "meta.json").write_text(json.dumps(meta))
    return random_bundle(source, folder)


def random_bundle(source: Path, folder: Path, *, labelled: bool = False) -> Path:
    """Write a bundle with random weights, the same each time, over a folder of stage prepare and give the bundle's folder back."""
    items, meta = pd.read_parquet(source / "items.parquet"), json.loads((source / "meta.json").read_text())
    spec = FeatureSpec.load(source / "feature_spec.json")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        n_items = len(items)
        text = torch.randn(n_items, 6).numpy()
        config = ModelConfig(dim=8, blocks=1, heads=2, max_history=6)
        content = ItemContent.build(spec.encode(items), text, np.ones(n_items, dtype=bool), np.arange(1, n_items + 1))
        shape = Shape(6, spec.n_codes, content.numbers.shape[1], n_items, len(meta["event_types"]), meta["has_time"], labelled=labelled)
        net = SequentialNetwork(config, shape)
        with torch.no_grad():
            net.fusion.whiten.fit(content.text)
            for parameter in net.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.3)
    scorers = fit_scorers([*CLASSES], Histories.of_items([[0, 1, 2, 3], [5, 6, 7]]), content)
    write_bundle(SequentialRecommender(config, shape, net, content, scorers, dict.fromkeys(CLASSES, 0.1)), source, folder)
    return folder


def headed_bundle(folder: Path) -> Path:
    """The same with a re-ranker and a calibrated label head, both with random weights; item i4 has most events."""
    plain = small_bundle(folder.with_name(f"{folder.name}-plain"))
    recommender, start = Bundle.load(plain).recommender, 1_700_000_000
    known = Histories.of_items([[0, 1, 4], [4, 5], [4, 4, 2]], request_time=start)
    known = replace(known, times=start - 1000 * np.arange(8, 0, -1), positive=np.array([1, 0, 1, 1, 0, 1, 1, 1], dtype=bool))
    members = ("network", *recommender.weights)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        numbers = Numbers.fit(torch.randn(50, 1 + len(members) + len(COUNTERS)).numpy())
        head = HeadNet(2, 0, numbers.width, 4, 0.0)
        shape = replace(recommender.shape, labelled=True)
        net = SequentialNetwork(recommender.config, shape)
        net.load_state_dict(recommender.net.state_dict(), strict=False)
        with torch.no_grad():
            for parameter in (*head.parameters(), *net.label_head.parameters()):  # type: ignore[union-attr]
                parameter.normal_(std=0.3)
    reranker = Reranker(head, numbers, Line(0.8, -1.0), Line(0.1, -3.0), members, True, ItemCounters.of(known, recommender.n_items))
    labels = LabelProbabilities(Line(0.5, -0.2), LabelCounters.of(known, recommender.n_items))
    write_bundle(
        SequentialRecommender(
            recommender.config,
            shape,
            net.requires_grad_(False),
            recommender.content,
            recommender.scorers,
            recommender.weights,
            reranker,
            labels,
        ),
        plain.with_name(f"{plain.name}-source"),
        folder,
    )
    return folder
