"""The code of the first page, as it stands there: the config is a config, and the query is answered."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nightloom.config import config_from_dict
from nightloom.promotion.registry import Registry
from tests.small_bundle import small_bundle

ROOT = Path(__file__).parents[2]
KNOWN = ("50", "181", "100")
"""Ids that the pages ask with."""
PAGES = ("README.md", "README.zh.md", "docs/registered-model.md")


def block(page: str, language: str) -> str:
    """The page's first block of a language."""
    found = re.search(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found, f"{page} has no block of {language}"
    return found.group(1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose `mlruns` holds a champion of the name that the page asks."""
    folder = tmp_path_factory.mktemp("home")
    registry = Registry(folder / "mlruns")
    run = registry.tracking.client.create_run(registry.tracking.experiment("movies-small")).info.run_id
    registry.promote(registry.register("movies-small", small_bundle(folder / "bundle", KNOWN), run, {}, "A card", [["i3", "i4"]]))
    return folder


@pytest.mark.parametrize("page", PAGES)
def test_the_model_answers_the_query_as_it_stands_on_the_page(page: str, home: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_TRACKING", "NIGHTLOOM_"))}
    environment |= {"PYTHONPATH": str(ROOT / "src"), "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", block(page, "python")], cwd=home, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "items" in done.stdout
    assert "scores" in done.stdout
    assert "i" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize("page", PAGES[:2])
def test_the_config_of_the_page_is_one(page: str) -> None:
    text = block(page, "yaml")
    assert len(text.splitlines()) <= 12
    assert config_from_dict(yaml.safe_load(text)).data.columns["items"]["genres"] == "genres"
    assert yaml.safe_load(text) == yaml.safe_load(block("README.md", "yaml"))


def test_both_first_pages_name_the_same_commands_and_figures() -> None:
    english, chinese = ((ROOT / page).read_text(encoding="utf-8") for page in PAGES[:2])
    for pattern in (r"^    ([a-z.][^#\n]*?) *(?:#.*)?$", r"\*\*(\.\d+)\*\* \| (\.\d+)", r"```(?:python|text)\n(?:.*\n)*?```"):
        strip = [re.sub(r" *#.*", "", str(found)) for found in re.findall(pattern, english, re.MULTILINE)]
        assert strip == [re.sub(r" *#.*", "", str(found)) for found in re.findall(pattern, chinese, re.MULTILINE)]
