"""The code that a result depends on."""

from __future__ import annotations

from pathlib import Path

import pytest

from nightloom.runs import code
from nightloom.runs.code import code_of

FILES = {
    "__init__.py": "",
    "a.py": '"""A."""\nfrom typing import TYPE_CHECKING\n\nfrom nightloom.part import b\nif TYPE_CHECKING:\n    import nightloom.typed\n',
    "part/__init__.py": "",
    "part/b.py": "from . import c\n\n\ndef f():\n    from nightloom.lazy import late\n    import torch\n    return c, late, torch\n",
    "part/c.py": "X = 1\n",
    "lazy.py": "late = 1\n",
    "typed.py": "T = 1\n",
    "other.py": "O = 1\n",
    "config.py": "C = 1\n",
}


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return {"nightloom": tmp_path}


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("a.py", True),
        ("part/__init__.py", True),
        ("part/b.py", True),
        ("part/c.py", True),
        ("lazy.py", True),
        ("typed.py", False),
        ("other.py", False),
        ("config.py", False),
        ("__init__.py", False),
    ],
)
def test_a_module_counts_where_it_is_imported(places: dict[str, Path], name: str, counts: bool) -> None:
    before = code_of(["nightloom.a"], places)
    with (places["nightloom"] / name).open("a") as file:
        file.write("ADDED = 1\n")
    assert (code_of(["nightloom.a"], places) != before) is counts


def test_words_do_not_count(places: dict[str, Path]) -> None:
    before = code_of(["nightloom.a"], places)
    path = places["nightloom"] / "part" / "b.py"
    path.write_text('"""A docstring."""\n\n# a comment\n' + path.read_text().replace("def f():\n", 'def f():\n    """Another."""\n\n'))
    assert code_of(["nightloom.a"], places) == before


def test_a_package_stands_for_all_its_modules(places: dict[str, Path]) -> None:
    before = code_of(["nightloom.part"], places)
    (places["nightloom"] / "part" / "new.py").write_text("")
    assert code_of(["nightloom.part"], places) != before


def test_a_library_counts_where_it_is_imported(places: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    before = [code_of([name], places) for name in ("nightloom.a", "nightloom.other")]
    monkeypatch.setattr(code, "version", lambda library: f"{library} 99")
    after = [code_of([name], places) for name in ("nightloom.a", "nightloom.other")]
    assert (before[0] != after[0], before[1] == after[1]) == (True, True)


def test_what_is_not_of_the_project_is_left_out(places: dict[str, Path]) -> None:
    assert code_of([test_words_do_not_count, "nightloom.gone", "json"], places) == code_of([], places)
