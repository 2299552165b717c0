"""The gate lets an export serve only where it gives the vectors that the model was trained with."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nightloom.compress import text as gate
from nightloom.compress.text import LEAST_KEPT, MOST_LOST, TextExport, measured, text_export
from nightloom.config import RunConfig
from nightloom.encoders.exported import ExportedEncoder
from nightloom.packaging.bundle import Bundle
from tests.service_app import make_snapshot
from tests.serving_bundle import serving_bundle
from tests.tiny_models import tiny_bert


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A bundle that reads texts, with all rules of stage prepare, and its users' events."""
    folder = tmp_path_factory.mktemp("gate")
    bundle = Bundle.load(serving_bundle(folder / "bundle", encoder=str(tiny_bert(folder / "bert"))))
    rules = RunConfig.model_validate({"name": "shop", "data": {"events": "none.csv"}}).prepare.model_dump(mode="json")
    meta: Any = bundle.meta
    meta["prepare"] = rules | {"positive_events": ["buy"], "seen_events": ["buy", "return"], "keep_repeats": True}
    meta["rare_items"] = []
    return SimpleNamespace(bundle=bundle, snapshot=make_snapshot(folder / "snapshot"), folder=folder)


def test_a_faithful_export_passes_and_is_made_once(made: SimpleNamespace, tmp_path: Path) -> None:
    found = text_export(made.bundle, tmp_path, made.snapshot)
    assert found is not None
    said, folder = found
    assert said.passes
    assert said.precision == "int8"
    assert said.neighbours_kept >= 0.95
    assert said.cold_ndcg_loss is not None
    assert abs(said.cold_ndcg_loss) < 0.01
    assert said.bytes == sum(path.stat().st_size for path in folder.iterdir())
    written = (folder / "model.bin").stat().st_mtime_ns
    assert text_export(made.bundle, tmp_path, made.snapshot) == found
    assert (folder / "model.bin").stat().st_mtime_ns == written


def test_another_models_vectors_do_not_pass(made: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = tiny_bert(tmp_path / "other", seed=5)
    said = dict(made.bundle.manifest.encoder["text"])
    bundle = Bundle.load(made.bundle.folder)
    bundle.manifest = replace(bundle.manifest, encoder={"text": said | {"model": str(other), "sha256": None}})
    with caplog.at_level(logging.INFO):
        assert text_export(bundle, tmp_path / "exports") is None
    tried = [
        record.getMessage() for record in caplog.records if record.levelno == logging.INFO and "neighbours_kept" in record.getMessage()
    ]
    assert [precision for precision in gate.LADDER if any(f"-{precision}:" in line for line in tried)] == list(gate.LADDER)
    assert "no export of" in caplog.text


def test_a_cold_item_that_loses_its_place_is_measured(made: SimpleNamespace, tmp_path: Path) -> None:
    """Vectors that say nothing rank cold items lower than those that were learned, or higher by chance; exact ones change nothing."""
    found = text_export(made.bundle, tmp_path)
    assert found is not None
    targets, queries = gate._last_events(made.bundle, made.snapshot)
    assert len(targets) == len(queries) > 10
    events = pd.read_parquet(made.snapshot / "events.parquet")
    last = events[events["event"] == "buy"].drop_duplicates(["user_id"], keep="last").set_index("user_id")["item_id"]
    assert {f"i{target}" for target in targets} <= set(last)
    content = made.bundle.recommender.content
    exact = gate._cold_ndcg(made.bundle, targets, queries, content.text.numpy())
    assert exact == gate._cold_ndcg(made.bundle, targets, queries, content.text.numpy())
    assert exact != gate._cold_ndcg(made.bundle, targets, queries, np.roll(content.text.numpy(), 1, 0))
    assert measured(ExportedEncoder(found[1]), found[1], made.bundle, None).cold_ndcg_loss is None


@pytest.mark.parametrize(
    ("kept", "lost", "passes"),
    [(LEAST_KEPT, None, True), (LEAST_KEPT - 1e-6, None, False), (1.0, MOST_LOST, False), (1.0, MOST_LOST - 1e-6, True), (1.0, -0.2, True)],
)
def test_its_limits(kept: float, lost: float | None, passes: bool) -> None:
    one = TextExport("n", "s", "m", "int8", 4, 1, kept, lost, False)
    assert one.passes is passes
    assert json.loads(json.dumps(one.said()))["neighbours_kept"] == kept


def test_a_model_that_is_gone_leaves_the_service_without_texts(
    made: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = Bundle.load(made.bundle.folder)
    bundle.manifest = replace(
        bundle.manifest, encoder={"text": dict(made.bundle.manifest.encoder["text"]) | {"model": str(tmp_path / "gone")}}
    )
    assert text_export(bundle, tmp_path / "exports") is None
    assert "the service will read no texts" in caplog.text
