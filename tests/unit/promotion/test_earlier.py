"""Which earlier nights the gate may pool."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from nightloom.promotion.earlier import earlier_nights


def night(
    nights: Path, name: str, champion: str | None, decision: str | None, families: tuple[str, ...] = ("nightloom", "champion")
) -> None:
    folder = nights / name
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps({"gate": {"decision": decision}, "versions": {"champion": champion}}))
    rows = [{"family": family, "protocol": "temporal", "user_id": name, "item_id": "i", "rank": 1} for family in families]
    pd.DataFrame(rows).to_parquet(folder / "per_user.parquet", index=False)


def found(nights: Path, champion: str = "2") -> list[str]:
    return [one["challenger"]["user_id"].iloc[0] for one in earlier_nights(nights, "20260110", champion, "temporal", "nightloom")]


def test_only_nights_with_the_same_champion_count_the_latest_first(tmp_path: Path) -> None:
    night(tmp_path, "20260101", "1", "reject")
    night(tmp_path, "20260102", "2", "promote")
    night(tmp_path, "20260103", "2", "reject")
    night(tmp_path, "20260104", None, None)  # refused input
    night(tmp_path, "20260105", "2", "reject", ("nightloom", "champion", "anchor"))
    night(tmp_path, "20260110", "2", "reject")  # tonight
    assert found(tmp_path) == ["20260105", "20260103"]
    assert set(earlier_nights(tmp_path, "20260110", "2", "temporal", "nightloom")[0]) == {"challenger", "champion", "anchor"}
    assert found(tmp_path, champion="1") == []


def test_what_can_not_be_read_ends_the_list_and_six_are_enough(tmp_path: Path) -> None:
    for day in range(1, 10):
        night(tmp_path, f"2026010{day}", "2", "reject")
    assert found(tmp_path) == [f"2026010{day}" for day in range(9, 3, -1)]
    (tmp_path / "20260107" / "per_user.parquet").write_bytes(b"broken")
    assert found(tmp_path) == ["20260109", "20260108"]
    assert earlier_nights(tmp_path / "none", "20260110", "2", "temporal", "nightloom") == []
