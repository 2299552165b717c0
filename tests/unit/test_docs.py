"""The Markdown of the project against the project: line lengths, links, and the commands that pages name."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FRONT = [ROOT / name for name in ("README.md", "README.zh.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "mlruns/README.md")]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*FRONT, *DOCS, *sorted((ROOT / "benchmarks").glob("*.md"))]
LIMIT = 120
FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")

named = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page: Path) -> list[str]:
    """Lines that are neither code nor rows of a table."""
    lines = FENCE.sub("", page.read_text(encoding="utf-8")).splitlines()
    return [line for line in lines if not line.startswith(("    ", "|"))]


def anchors(page: Path) -> set[str]:
    """What GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _module(name: str) -> str:
    """Source of a module, or of a package's first file; empty where there is none."""
    place = ROOT.joinpath("src", *name.split("."))
    found = [path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()]
    return found[0].read_text(encoding="utf-8") or " " if found else ""


@named
def test_lines_are_short(page: Path) -> None:
    long = [line for line in prose(page) if len(line) >= LIMIT and not LINK.search(line)]
    assert not long, f"{LIMIT} characters or more, outside tables, code and links"


@named
def test_links_and_images_are_there(page: Path) -> None:
    for target in LINK.findall("\n".join(line for line in FENCE.sub("", page.read_text(encoding="utf-8")).splitlines())):
        if re.match(r"https?:|mailto:", target):
            continue
        place, _, anchor = target.partition("#")
        found = (page.parent / place).resolve() if place else page
        assert found.exists(), f"{target} is not there"
        assert not anchor or anchor in anchors(found), f"{target}: no such heading"


@named
def test_every_target_of_make_is_one(page: Path) -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"(?:^ *|`|&& )make ([a-z][\w-]*)", page.read_text(encoding="utf-8"), re.MULTILINE)) <= targets


@named
def test_every_module_that_is_run_is_one(page: Path) -> None:
    for module in set(re.findall(r"python -m ((?:flows|benchmarks|nightloom)(?:\.\w+)*)", page.read_text(encoding="utf-8"))):
        assert find_spec(module), f"python -m {module}: no such module"


@named
def test_every_command_of_nightloom_is_one(page: Path) -> None:
    import typer

    from nightloom.cli import app

    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert set(re.findall(r"(?:^ *|`|bin/|&& )nightloom ([a-z][\w-]*)", page.read_text(encoding="utf-8"), re.MULTILINE)) <= known


@pytest.mark.parametrize(
    "page", [*(page for page in FRONT if page.name != "CHANGELOG.md"), *DOCS], ids=lambda page: str(page.relative_to(ROOT))
)
def test_every_file_and_module_that_is_named_is_there(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    tops = "src|flows|tasks|expectations|deployment|benchmarks|docs|tests|config|core|runs|data|encoders|models|training|packaging"
    tops += "|evaluation|explain|promotion|experiments|report"
    for place in set(re.findall(rf"`((?:{tops})/[\w./-]*(?:\.\w+|/))`", text)):
        assert (ROOT / place).exists() or (ROOT / "src" / "nightloom" / place).exists(), f"{place} is not there"
    for name in set(re.findall(r"`(nightloom(?:\.\w+)+)`", text)):
        parent, _, last = name.rpartition(".")
        assert _module(name) or f" {last}" in _module(parent), f"{name} is not there"


def test_every_page_of_docs_is_in_the_index_of_the_first_page() -> None:
    for first in ("README.md", "README.zh.md"):
        linked = set(LINK.findall((ROOT / first).read_text(encoding="utf-8")))
        assert {f"docs/{page.name}" for page in DOCS} <= linked
