"""docs/config.md against the sections that it is made from."""

from __future__ import annotations

from pathlib import Path

from nightloom.config import RunConfig
from nightloom.config.reference import page

PAGE = Path(__file__).parents[2] / "docs" / "config.md"


def test_the_committed_page_is_what_the_sections_make() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python -m nightloom.config.reference > docs/config.md`"


def test_every_section_and_key_has_a_row_and_every_key_its_meaning() -> None:
    rows = [line.split(" | ") for line in page().splitlines() if line.startswith("| `")]
    keys = [row[0].strip("| `") for row in rows]
    assert len(keys) == len(set(keys))
    assert {key.partition(".")[0] for key in keys} == set(RunConfig.model_fields)
    assert "data.event_filter.since" in keys
    assert all(len(row[3].strip("| ")) > 5 for row in rows)
