"""docs/deployment.md against the code: what it lists is all there is, and what it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")


def test_every_variable_of_the_environment_is_listed_and_no_other() -> None:
    files = [
        path
        for folder in ("src", "flows", "tasks", "expectations", "benchmarks", "tests", "deployment")
        for path in (ROOT / folder).rglob("*")
    ]
    texts = [path.read_text(encoding="utf-8") for path in files if path.suffix in (".py", ".sh", ".yaml")]
    used = {name for text in texts for name in re.findall(r"NIGHTLOOM_[A-Z_]*[A-Z]", text)}
    assert set(re.findall(r"^\| `(NIGHTLOOM_\w+)`", PAGE, re.MULTILINE)) == used


@pytest.mark.parametrize("place", sorted(set(re.findall(r"`((?:deployment|benchmarks|tests|docs|expectations)/[\w./-]*)`", PAGE))))
def test_what_the_page_names_is_there(place: str) -> None:
    assert (ROOT / place).exists()


def test_every_command_of_nightloom_that_the_page_names_is_one() -> None:
    from nightloom.cli import app

    known = {command.name or (command.callback and command.callback.__name__) for command in app.registered_commands}
    named = set(re.findall(r"nightloom (\w+) (?:--|mine)", PAGE))
    assert named >= {"trim", "versions", "rollback"}
    assert named <= known
