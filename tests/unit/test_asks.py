"""Which nights ask in Prefect's page whether what waits is promoted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from nightloom.config import load_preset
from nightloom.promotion.registered import Version
from nightloom.promotion.review import STARTED_BY
from nightloom.runs.stages import Night
from tasks.approval import _question, asks


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


def test_a_name_is_text_in_the_form_that_another_person_sees() -> None:
    hostile = "<img src=x onerror=alert(1)> [approve here](http://evil.example) **done**"
    version = Version("nightloom-shop", "3", "run", {STARTED_BY: hostile})
    for question in (_question(version, ""), _question(version, f"{hostile} can not approve it")):
        made = MarkdownIt().render(question)
        assert set(re.findall(r"<(\w+)", made)) == {"p", "strong", "code"}
        assert "approve here" in made
