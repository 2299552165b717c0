"""What the base contract asks of pictures."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from expectations.run import check, read_checked
from nightloom.config import RunConfig, config_from_dict
from nightloom.core.errors import ContractBroken
from nightloom.data.tables.pictures import PICTURES, UNREADABLE
from nightloom.data.tables.schema import Tables

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def tables(photos: list[str | None], folder: Path) -> Tables:
    rows = [(f"u{at % 7}", f"i{at % len(photos)}") for at in range(120)]
    events = pd.DataFrame(rows, columns=["user_id", "item_id"]).assign(order=range(120), event="buy")
    items = pd.DataFrame({"item_id": [f"i{at}" for at in range(len(photos))], "photo": pd.Series(photos, dtype="str")})
    (folder / "snapshot").mkdir()
    pd.DataFrame({"key": ["a"], "path": ["b"], "reason": [None]}).to_parquet(folder / "snapshot" / PICTURES)
    return Tables(events, items, features={"photo": "image"}, pictures=folder / "snapshot" / PICTURES)


def config(limit: float) -> RunConfig:
    return config_from_dict({"name": "shop", "data": {"events": "e.csv"}, "pretrained": {"max_bad_images": limit}})


def test_missing_pictures_are_told_and_lost_ones_counted(tmp_path: Path) -> None:
    photos = ["ab" * 32] * 17 + [None, None, UNREADABLE + "photos/gone.png"]
    figures = check(tables(photos, tmp_path), config(0.1), tmp_path, None, NOW)
    assert any("items.photo: expected a picture for every item, found 2 of 20 rows against it" in line for line in figures["warnings"])
    lines = {line["rule"]: line for line in json.loads((tmp_path / "checks.json").read_text()) if line["column"] == "photo"}
    assert lines["at least 90.0% of the 18 named pictures to be files that can be read"]["passed"]
    good = read_checked(tmp_path)
    assert good.items is not None
    assert len(good.items) == 20
    assert good.pictures is not None
    assert pd.read_parquet(good.pictures)["key"].tolist() == ["a"]


def test_too_many_lost_pictures_stop_the_night_before_any_model_is_asked(tmp_path: Path) -> None:
    photos = ["ab" * 32] * 12 + [f"{UNREADABLE}photos/{at}.png" for at in range(8)]
    with pytest.raises(ContractBroken) as broken:
        check(tables(photos, tmp_path), config(0.1), tmp_path, None, NOW)
    for words in (
        "items.photo: expected at least 90.0% of the 20 named pictures",
        "found 8 of 20 rows against it",
        "for example photos/0.png",
        "pretrained.max_bad_images",
    ):
        assert words in str(broken.value)


def test_a_catalogue_without_any_picture_yet_is_no_fault(tmp_path: Path) -> None:
    assert check(tables([None] * 20, tmp_path), config(0.0), tmp_path, None, NOW)["quarantined"]["items"] == 0
