"""The load benchmark, in short: what does not hang on the machine's speed holds here too."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import serving_load
from nightloom.serving.settings import Champion
from tests.service_app import make_served


def test_nothing_is_lost_under_load_while_versions_change_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_served(tmp_path / "made")
    monkeypatch.setattr(serving_load, "CHANGE_SECONDS", 0.7)
    lines, _ = serving_load.measure(Champion("shop", "1", made / "serving", made / "snapshot"), 1, 2.0)
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:7]]
    assert [cell[0].split(",")[0] for cell in cells] == [
        "8 clients",
        "half load",
        "half load",
        "three times the load",
        "half load",
    ]
    assert int(cells[2][0].split()[2]) >= 1, "versions changed"
    assert all(int(cell[2].split()[0].replace(",", "")) > 0 for cell in cells)
    assert [cell[4] for cell in cells[:4]] == ["0"] * 4, "only answers, and 429 that say when to come back"
    (ended,) = [line for line in lines if line.startswith("- SIGTERM")]
    assert ended.endswith(": yes"), lines
