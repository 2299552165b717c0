"""Which night was the last, here and in the store, where a kill comes between the two."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nightloom.config import load_preset
from nightloom.runs import nights
from nightloom.runs.nights import fetch_latest, finish
from nightloom.runs.stages import Night
from nightloom.runs.storage import STORE, Storage


class Killed(BaseException):
    """In the place of a SIGKILL."""


def finished(root: Path) -> Night:
    """A night that has only to be made the last one."""
    night = Night.start(load_preset("movies-small"), root)
    night.folder.mkdir(parents=True)
    (night.folder / "report.json").write_text("{}")
    return night


@pytest.fixture(autouse=True)
def _store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STORE, f"file://{tmp_path}/store")


@pytest.mark.parametrize("killed", ["before the store knows", "after the store knows"])
def test_no_night_is_the_last_one_here_that_other_machines_do_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: str
) -> None:
    """Else the next night here would find nothing changed, and never say so in the store."""
    night = finished(tmp_path / "here")

    def kill(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if killed == "before the store knows":
            real = Storage.write_json
            patch.setattr(Storage, "write_json", lambda self, place, what: kill() if "latest" in place else real(self, place, what))
        else:
            patch.setattr(nights, "_point_at", kill)
        with pytest.raises(Killed):
            finish(night)
    assert not night.latest.exists()
    fetch_latest(night)
    assert night.latest.exists() == (killed == "after the store knows")
    other = Night.start(night.config, tmp_path / "there")
    fetch_latest(other)
    assert other.latest.exists() == night.latest.exists()


def test_a_report_that_is_written_again_brings_no_earlier_night_back(tmp_path: Path) -> None:
    """Somebody answers what a night has asked after another one has ended."""
    asked, later = (Night.start(load_preset("movies-small"), tmp_path / "here", force=True) for _ in range(2))
    later = replace(later, night=f"{asked.night}9")
    for night in (asked, later):
        night.folder.mkdir(parents=True, exist_ok=True)
        (night.folder / "report.json").write_text("{}")
        finish(night)
    finish(asked, again=True)
    assert asked.latest.resolve() == later.folder.resolve()
    other = Night.start(asked.config, tmp_path / "there")
    fetch_latest(other)
    assert other.latest.resolve().name == later.folder.name
