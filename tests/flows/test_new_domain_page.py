"""docs/new-domain.md, followed to the letter in a copy of the project."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.docs_page import copy_of_the_project, follow


def test_every_step_of_the_page_does_what_it_says_and_the_first_model_wins(tmp_path: Path) -> None:
    printed = follow("new-domain.md", tmp_path, copy_of_the_project(tmp_path))
    data, night, lists, broken = (printed[line] for line in printed if not re.match(r"python \w+_bookshop", line))
    assert "category" in data
    assert "copies" in broken
    assert "100" in broken
    assert "NDCG@10" in night
    assert len(re.findall(r"\bb\d+\b", lists)) >= 3
    nights = tmp_path / "mlruns" / "nights" / "bookshop"
    assert [*nights.glob("*/quarantine/events.parquet")]
    assert (nights / "latest" / "report.html").exists()
    report = json.loads((nights / "latest" / "report.json").read_text(encoding="utf-8"))
    assert report["gate"]["decision"] == "promote"
    ndcg = {name: protocols["streaming"]["ndcg_at_10"] for name, protocols in report["metrics"].items()}
    assert max(ndcg, key=ndcg.__getitem__) == "nightloom"
    assert ndcg["nightloom"] > 1.1 * max(value for name, value in ndcg.items() if name != "nightloom")
