"""A small prepared folder with a pattern that can be learned: item i is followed by item i + 1."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nightloom.config import config_from_dict
from nightloom.core.sequences import Sequences
from nightloom.data.preparation.catalogue import write_catalogue
from nightloom.data.preparation.items import FeatureSpec

N_ITEMS, N_USERS, TEXT_DIM = 30, 40, 12
FRUIT = ["apple", "pear", "plum"]


def write_prepared(folder: Path) -> SimpleNamespace:
    """Prepared and pretrained folders of a made-up shop."""
    random = np.random.default_rng(0)
    prepared, pretrained = folder / "prepared", folder / "pretrained"
    prepared.mkdir(parents=True)
    pretrained.mkdir()
    lengths = random.integers(3, 12, N_USERS)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    start = random.integers(0, N_ITEMS - 2, N_USERS)
    position = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    items = ((np.repeat(start, lengths) + position) % (N_ITEMS - 2)).astype(np.int32)  # the last two items are never had
    times = (1_700_000_000 + np.repeat(random.integers(0, 10**6, N_USERS), lengths) + 3600 * position).astype(np.int64)
    event_types = random.integers(0, 2, len(items)).astype(np.int16)
    positive = random.random(len(items)) < 0.9
    for protocol in ("streaming", "temporal", "leave_one_out"):
        ends = (offsets[1:] - 2, offsets[1:] - 1)
        Sequences(offsets, items, times, event_types, positive, *ends, N_ITEMS).save(prepared / f"sequences_{protocol}.npz")
    table = pd.DataFrame(
        {
            "item_id": [f"i{row}" for row in range(N_ITEMS)],
            "fruit": [FRUIT[row % 3] for row in range(N_ITEMS)],
            "price": [None if row % 7 == 0 else float(row) for row in range(N_ITEMS)],
            "text": [None if row % 5 == 0 else f"{FRUIT[row % 3]} number {row}" for row in range(N_ITEMS)],
        }
    )
    table.to_parquet(prepared / "items.parquet", index=False)
    write_catalogue(table, prepared)
    spec = FeatureSpec.fit(table, {"fruit": "category", "price": "number"})
    spec.save(prepared / "feature_spec.json")
    spec.encode(table).save(prepared / "item_features.npz")
    (prepared / "meta.json").write_text(json.dumps({"event_types": ["buy", "view"], "has_time": True}))
    has_text = table["text"].notna().to_numpy()
    np.save(pretrained / "text_vectors.npy", (random.normal(size=(N_ITEMS, TEXT_DIM)) * has_text[:, None]).astype(np.float32))
    np.save(pretrained / "text_mask.npy", has_text)
    (pretrained / "texts.json").write_text(json.dumps([None if pd.isna(text) else text for text in table["text"]]))
    return SimpleNamespace(prepared=prepared, pretrained=pretrained)


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    return write_prepared(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def settings() -> Any:
    """A function: overrides of a small config -> RunConfig."""

    def build(**training: Any) -> Any:
        model = {"dim": 16, "blocks": 2, "heads": 2, "max_history": 6, "dropout": 0.2}
        pretrained = training.pop("pretrained", {})
        base = {"epochs": 4, "patience": 4, "batch_users": 8, "workers": 1, "learning_rate": 0.01, "precision": "fp32"}
        return config_from_dict(
            {
                "name": "shop",
                "data": {"events": "e.csv"},
                "model": model | training.pop("model", {}),
                "pretrained": pretrained,
                "training": base | training,
            }
        )

    return build


@pytest.fixture
def write_run(shop: SimpleNamespace) -> Any:
    """A function: (config, out, protocol) -> run.json."""

    def write(config: Any, out: Path, protocol: str = "temporal") -> Path:
        out.mkdir(parents=True, exist_ok=True)
        content = {
            "config": config.model_dump(mode="json"),
            "protocol": protocol,
            "prepared": str(shop.prepared),
            "pretrained": str(shop.pretrained),
            "out": str(out),
        }
        (out / "run.json").write_text(json.dumps(content))
        return out / "run.json"

    return write
