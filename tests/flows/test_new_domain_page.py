"""docs/new-domain.md, followed to the letter in a copy of the project."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs_page import copy_of_the_project, follow


def test_every_step_of_the_page_does_what_it_says(tmp_path: Path) -> None:
    said = follow("new-domain.md", tmp_path, copy_of_the_project(tmp_path))
    data, night, lists, broken = (said[line] for line in said if not re.match(r"python \w+_bakery", line))
    assert "category" in data
    assert "pieces" in broken
    assert "100" in broken
    assert "NDCG@10" in night
    assert len(re.findall(r"\bp\d+\b", lists)) >= 3
    quarantine = [*(tmp_path / "mlruns" / "nights" / "bakery").glob("*/quarantine/events.parquet")]
    assert quarantine
    assert (tmp_path / "mlruns" / "nights" / "bakery" / "latest" / "report.html").exists()
