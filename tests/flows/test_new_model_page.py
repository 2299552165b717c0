"""docs/new-model.md, followed to the letter in a copy of the project."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs_page import copy_of_the_project, follow


def test_a_baseline_of_ones_own_is_tested_and_ranked_beside_the_others(tmp_path: Path) -> None:
    environment = copy_of_the_project(tmp_path, "pyproject.toml", "tests/unit/models/test_baselines.py")
    follow("new-domain.md", tmp_path, environment, until="## 4.")
    tests, table = follow("new-model.md", tmp_path, environment).values()
    assert "[100%]" in tests
    names = ("item_knn", "jaccard")
    assert all(name in table for name in names)
    rows = re.findall(r"^\| (?:\*\*)?(\w+)", (tmp_path / "baselines.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(names) <= set(rows)
