"""The arms of a replay are asked with the event names that each of them knows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nightloom.config import config_from_dict
from nightloom.core.metrics import per_query
from nightloom.core.ranking import ranks
from nightloom.core.sequences import Sequences
from nightloom.data.preparation.clean import DAY_MS
from nightloom.data.tables.schema import Tables
from nightloom.encoders.vectors import Vectors
from nightloom.experiments.replay import METRIC, Moment, judge, write_moment
from nightloom.packaging.bundle import Bundle
from tests.small_bundle import N_ITEMS, random_bundle

CONFIG = config_from_dict(
    {
        "name": "t",
        "data": {"events": "e.csv"},
        "prepare": {"keep_repeats": True},
        "evaluation": {"protocols": ["temporal"], "exclude_seen": False},
    }
)
BEGIN, DAYS, TONIGHT = 1_600_041_600_000, 20, ("add", "purchase", "view")
"""`BEGIN` is a midnight, UTC, in milliseconds."""


@pytest.mark.parametrize("others", [0, 1], ids=["past the end", "shifted"])
def test_a_frozen_model_hears_the_names_that_it_knows(tmp_path: Path, others: int) -> None:
    """A name comes up after the first night, before the others in the alphabet; a last one is known of somebody who is not asked."""
    early = ("purchase", "view", "wish")[: 2 + others]
    random, n = np.random.default_rng(0), 600
    day = np.sort(random.uniform(0, DAYS, n))
    event = np.where(day < DAYS / 2, random.choice(TONIGHT[1:], n), random.choice(TONIGHT, n))
    events = pd.DataFrame({"user_id": [f"u{one}" for one in random.integers(0, 30, n)], "event": event})
    events["item_id"] = [f"i{one}" for one in random.integers(0, N_ITEMS, n)]
    gone = pd.DataFrame({"user_id": ["gone"], "item_id": "i0", "event": "wish"})[:others]
    events, day = pd.concat([gone, events], ignore_index=True), np.concatenate([np.zeros(others), day])
    events["timestamp"] = pd.to_datetime(BEGIN + (day * DAY_MS).astype(np.int64), unit="ms", utc=True)
    items = pd.DataFrame({"item_id": [f"i{row}" for row in range(N_ITEMS)], "title": [f"Title {row}" for row in range(N_ITEMS)]})
    nights = [tmp_path / "first", tmp_path / "tonight"]
    for folder, at in zip(nights, (8, 16), strict=True):
        folder.mkdir()
        shown = Tables(events[events["timestamp"] < pd.Timestamp(BEGIN + 10 * DAY_MS, unit="ms", tz="UTC")] if at == 8 else events, items)
        write_moment(
            replace(shown, features={"title": "text"}),
            Moment(BEGIN + at * DAY_MS, BEGIN + (at + 2) * DAY_MS),
            folder,
            rules=CONFIG.prepare,
            evaluation=CONFIG.evaluation,
            tags_separator=CONFIG.data.tags_separator,
        )
    np.save(tmp_path / "text_vectors.npy", np.zeros((N_ITEMS, 6), dtype=np.float32))
    np.save(tmp_path / "text_mask.npy", np.ones(N_ITEMS, dtype=bool))
    first, now = (random_bundle(folder, folder.with_suffix(".bundle")) for folder in nights)

    found = judge(nights[1], tmp_path, {"scratch": now, "warm": now, "frozen": first}, exclude_seen=CONFIG.evaluation.exclude_seen)

    names = [json.loads((folder / "meta.json").read_text())["event_types"] for folder in nights]
    assert names[0] == list(early)
    assert names[1] == sorted({*early, *TONIGHT})
    usual = Bundle.load(first).event_names.default
    queries = Sequences.load(nights[1] / "sequences_temporal.npz").queries("test", exclude_seen=False)
    heard = np.array([names[0].index(name if name in early else usual) for name in names[1]], dtype=np.int16)
    asked = replace(queries, histories=replace(queries.histories, event_types=heard[queries.histories.event_types]))
    for model, put, arm in (
        (Bundle.load(now).recommender, queries, "scratch"),
        (Bundle.load(first).reindex(pd.read_parquet(nights[1] / "items.parquet"), Vectors.load(tmp_path)), asked, "frozen"),
    ):
        ranked = ranks(model, put, exclude_seen=False)
        np.testing.assert_allclose(found[arm], per_query(ranked.ranks, ranked.offsets)[METRIC])
    assert len(found) > 20
