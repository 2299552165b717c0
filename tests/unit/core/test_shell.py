"""Printed commands: they name this environment's program as the shell finds it from here, and are quoted."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nightloom.core.shell import typed


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with `.venv/bin/python` that runs, and `nightloom` beside it."""
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("python", "nightloom"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.chdir(tmp_path)
    return folder


def test_where_the_shell_does_not_find_it_its_path_is_named(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    assert typed("nightloom", "versions", "mine") == ".venv/bin/nightloom versions mine"
    monkeypatch.chdir("/")
    assert typed("python", "-m", "flows.tune") == f"{environment}/python -m flows.tune".removeprefix("/")


def test_where_the_shell_finds_it_its_name_is_enough(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{environment}:/usr/bin")
    assert typed("nightloom", "trim", "--keep", 3) == "nightloom trim --keep 3"


def test_arguments_are_quoted(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(environment))
    assert typed("nightloom", "night", Path("my data/mine.yaml"), "--force") == "nightloom night 'my data/mine.yaml' --force"
