"""What the shells of stages decide for themselves; what they run has tests of its own, and whole nights those of tests/flows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from prefect.client.schemas.actions import ArtifactCreate
from prefect.logging import disable_run_logger

from nightloom.config import config_from_dict
from nightloom.core.errors import ContractBroken, InputError
from nightloom.core.files import write_json
from nightloom.encoders.vectors import Vectors
from nightloom.encoders.weights import resolve
from nightloom.runs.code import code_version
from nightloom.runs.stages import Manifest, Night
from tasks.collect import collect
from tasks.load_pretrained import load_pretrained
from tasks.progress import artifact_key
from tasks.promote import promote
from tasks.report import unchanged
from tasks.validate import validate
from tests.tiny_models import tiny_bert


@pytest.fixture(autouse=True)
def _without_a_run() -> Iterator[None]:
    with disable_run_logger():
        yield


def night_of(root: Path, number: int = 1, **sections: Any) -> Night:
    return Night(config_from_dict({"name": "mine", **sections}), f"20260101-00000{number}", root)


def ended_well(night: Night, collected: Manifest) -> None:
    """As stage report leaves a night, as far as the next one reads it."""
    report = {"data_hash": collected.figures["hash"], "config_hash": night.config.digest(), "code": code_version(), "night": night.night}
    write_json(night.folder / "report.json", report | {"rows": {"events": 60}})
    if not (night.folder / "manifests" / "load_pretrained.json").exists():
        Manifest("load_pretrained", "k", "f", figures={"fingerprints": {}}).save(night.folder / "manifests" / "load_pretrained.json")
    night.latest.symlink_to(night.night)


def test_a_feed_that_stands_still_is_refused_when_its_newest_event_has_grown_too_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = pd.Timestamp(datetime.now(UTC)) - pd.Timedelta(hours=20)
    times = [newest - pd.Timedelta(minutes=one) for one in range(60)]
    events = {"user_id": [f"u{one % 7}" for one in range(60)], "item_id": [f"i{one % 9}" for one in range(60)], "timestamp": times}
    pd.DataFrame(events).to_csv(tmp_path / "events.csv", index=False)
    sections = {"data": {"events": str(tmp_path / "events.csv")}, "validation": {"max_age_days": 1, "min_events": 10}}
    first, second = (night_of(tmp_path / "mlruns", number, **sections) for number in (1, 2))
    collected = collect.fn(first)
    validate.fn(first, collected)
    ended_well(first, collected)
    assert unchanged(second, collected)  # a short night: it is fresh enough
    validate.fn(second, collected)

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + timedelta(hours=6)

    monkeypatch.setattr("nightloom.runs.stages.datetime", Later)
    assert unchanged(second, collected) is None
    with pytest.raises(ContractBroken, match=r"newest event at most 1 days old.*validation\.max_age_days"):
        validate.fn(second, collected)


def test_a_model_that_was_replaced_in_its_folder_is_read_anew(tmp_path: Path) -> None:
    model, prepared = tiny_bert(tmp_path / "bert"), tmp_path / "prepared"
    prepared.mkdir()
    pd.DataFrame({"item_id": ["a", "b", "c"], "text": ["star wars", "heat", None]}).to_parquet(prepared / "items.parquet")
    catalogue, collected = Manifest("prepare", "k", str(prepared)), Manifest("collect", "k", "f", figures={"hash": "h"})
    sections = {"data": {"events": "e.csv"}, "pretrained": {"model": str(model)}}
    first, second = (night_of(tmp_path / "mlruns", number, **sections) for number in (1, 2))
    before = load_pretrained.fn(first, catalogue)
    ended_well(first, collected)
    assert unchanged(second, collected)
    assert load_pretrained.fn(second, catalogue).status == "reused"

    pinned = night_of(tmp_path / "mlruns", 3, **sections | {"pretrained": {"model": str(model), "sha256": resolve(str(model)).sha256}})
    load_pretrained.fn(pinned, catalogue)
    tiny_bert(model, seed=1)
    assert unchanged(second, collected) is None
    after = load_pretrained.fn(second, catalogue)
    assert (after.status, after.figures["encoded"]) == ("done", 2)
    assert (Vectors.load(before.path).text[:2] != Vectors.load(after.path).text[:2]).any(1).all()
    with pytest.raises(InputError, match="are not the expected ones"):
        load_pretrained.fn(pinned, catalogue)

    (model / "model.safetensors").unlink()
    assert unchanged(second, collected) is None
    model.rename(tmp_path / "away")
    assert unchanged(second, collected)  # nothing was put in its place


@pytest.mark.parametrize("study", ["mine", "Shop1", "my study", "shop.v2", "a_b", "läden"])
def test_prefect_takes_the_key_of_any_name(study: str) -> None:
    key = artifact_key("tune", study)
    assert ArtifactCreate(key=key, type="table", data="x").key == key
    assert key.startswith("tune-")


def test_names_of_configs_keep_the_keys_that_they_had() -> None:
    assert artifact_key("families", "movies-small_2", "leave_one_out") == "families-movies-small-2-leave-one-out"


@pytest.mark.parametrize(("evaluated", "explained"), [(None, "3"), ("3", None), ("3", "3")])
def test_what_was_measured_beside_another_champion_is_measured_again(tmp_path: Path, evaluated: str | None, explained: str | None) -> None:
    """The champion may change between evaluate and explain, too: then reasons were compared with those of a version that does not stand."""
    night = night_of(tmp_path / "mlruns", data={"events": "events.csv"}, promotion={"mode": "disabled"})  # nothing stands
    stages = [
        Manifest(name, "k", str(tmp_path), figures={"champion": one}) for name, one in (("evaluate", evaluated), ("explain", explained))
    ]
    any_other = Manifest("fine_tune", "k", str(tmp_path))
    assert promote.fn(night, any_other, any_other, *stages, "a run") is None
