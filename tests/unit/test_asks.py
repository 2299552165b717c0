"""Which nights ask in Prefect's page whether what waits is promoted."""

from __future__ import annotations

from pathlib import Path

import pytest

from nightloom.config import load_preset
from nightloom.runs.stages import Night
from tasks.approval import asks


@pytest.mark.parametrize(
    ("hours", "outcome", "server", "asked"),
    [(1, "waits", True, True), (0, "waits", True, False), (1, "rejected", True, False), (1, "waits", False, False)],
)
def test_a_night_asks_where_somebody_can_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int, outcome: str, server: bool, asked: bool
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    if server:
        monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    config = load_preset("movies-small", ["promotion.mode=review", f"promotion.ask_hours={hours}"])
    assert asks(Night.start(config, tmp_path), {"outcome": outcome}) is asked
