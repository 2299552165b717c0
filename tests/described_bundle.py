"""A bundle with random weights whose items have titles, genres, a maker and a price, and a prepared folder that goes with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from nightloom.config import ModelConfig
from nightloom.core.sequences import Histories, Sequences
from nightloom.data.preparation.items import FeatureSpec
from nightloom.models.scorers.registry import CLASSES, fit_scorers
from nightloom.models.sequential.content_fusion import ItemContent
from nightloom.models.sequential.network import SequentialNetwork, Shape
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.write import write_bundle

N_ITEMS, N_USERS, EVENTS = 12, 6, 9


def described_items() -> pd.DataFrame:
    """Twelve items; nothing but the id is known of number 9."""
    items = pd.DataFrame(
        {
            "item_id": [f"i{row}" for row in range(N_ITEMS)],
            "title": [f"Title ${row}" for row in range(N_ITEMS)],
            "genres": ["red|blue", "blue", "green|red"] * 4,
            "maker": ["ann", "bob"] * 6,
            "price": np.arange(N_ITEMS, dtype=float),
        }
    ).astype({"title": object, "genres": object, "maker": object})
    items.loc[9, ["title", "genres", "maker"]] = None
    items.loc[9, "price"] = np.nan
    return items.assign(text=items["title"])


def described_bundle(folder: Path) -> Bundle:
    """Write the bundle and load it."""
    source, items = folder.with_name("described-source"), described_items()
    for made in (source, folder):
        made.mkdir(parents=True, exist_ok=True)
    items.to_parquet(source / "items.parquet", index=False)
    spec = FeatureSpec.fit(items, {"title": "text", "genres": "tags", "maker": "category", "price": "number"})
    spec.save(source / "feature_spec.json")
    (source / "meta.json").write_text(json.dumps({"event_types": ["buy"], "has_time": True}))
    config = ModelConfig(dim=8, blocks=1, heads=2, max_history=20)
    has_text = items["text"].notna().to_numpy(copy=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        text = torch.randn(N_ITEMS, 6).numpy() * has_text[:, None]
        content = ItemContent.build(spec.encode(items), text, has_text, np.arange(1, N_ITEMS + 1))
        net = SequentialNetwork(config, Shape(6, spec.n_codes, content.numbers.shape[1], N_ITEMS, 1, True))
        with torch.no_grad():
            net.fusion.whiten.fit(content.text)
            for parameter in net.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.3)
    scorers = fit_scorers([*CLASSES], Histories.of_items([[0, 1, 2, 3], [5, 6, 7]]), content)
    write_bundle(
        SequentialRecommender(
            config,
            net=net,
            shape=Shape(6, spec.n_codes, content.numbers.shape[1], N_ITEMS, 1, True),
            content=content,
            scorers=scorers,
            weights=dict.fromkeys(CLASSES, 0.1),
        ),
        source,
        folder,
    )
    return Bundle.load(folder)


def described_prepared(folder: Path) -> Path:
    """Write the parts of a prepared folder that explaining reads: six users with nine events each."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    total = N_USERS * EVENTS
    offsets = np.arange(0, total + 1, EVENTS)
    items = np.concatenate([random.permutation(N_ITEMS)[:EVENTS] for _ in range(N_USERS)]).astype(np.int32)
    times = 1_700_000_000 + 86_400 * np.tile(np.arange(EVENTS), N_USERS)
    made = Sequences(
        offsets, items, times, np.zeros(total, np.int16), np.ones(total, bool), offsets[:-1] + 5, offsets[:-1] + 7, n_items=N_ITEMS
    )  # fmt: skip
    for protocol in ("streaming", "temporal"):
        made.save(folder / f"sequences_{protocol}.npz")
    pd.DataFrame({"user_id": [f"user/{row}" for row in range(N_USERS)]}).to_parquet(folder / "users.parquet", index=False)
    return folder
