"""Stages: the same inputs give the same folder, a kill leaves nothing that looks finished, two runs do not meet."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nightloom.config import load_preset
from nightloom.core.errors import InputError
from nightloom.runs.locks import stage_lock
from nightloom.runs.stages import Manifest, Night, run_stage


@pytest.fixture
def night(tmp_path: Path) -> Night:
    return Night.start(load_preset("movies-small"), tmp_path)


class Body:
    """Writes one file, and counts how often it was asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, folder: Path) -> Mapping[str, Any]:
        self.calls += 1
        (folder / "out.txt").write_text("made")
        return {"rows": 3}


def test_a_stage_is_made_once_for_the_same_inputs(night: Night) -> None:
    body = Body()
    first = run_stage(night, "prepare", body, config={"a": 1})
    again = run_stage(replace(night, night="another"), "prepare", body, config={"a": 1})
    assert body.calls == 1
    assert (first.status, again.status) == ("done", "reused")
    assert first.folder == again.folder
    assert first.outputs == {"out.txt": 4}
    assert again.figures == {"rows": 3}


def test_what_went_in_tells_folders_apart(night: Night) -> None:
    body = Body()
    first = run_stage(night, "prepare", body, config={"a": 1})
    made = [
        first,
        run_stage(night, "prepare", body, config={"a": 2}),
        run_stage(night, "prepare", body, config={"a": 1}, salt="forced"),
        run_stage(night, "prepare", body, config={"a": 1}, inputs=[first]),
    ]
    assert len({one.key for one in made}) == 4


def test_a_stage_that_gives_the_same_leaves_those_after_it(night: Night) -> None:
    """Its own key may be another, and so may outputs that nobody reads."""

    def checked(found: str, log: str) -> Manifest:
        def write(folder: Path) -> dict[str, Any]:
            (folder / "good.txt").write_text(found)
            (folder / "log.txt").write_text(log)
            return {}

        return run_stage(night, "validate", write, config={}, salt=found + log, results=("good.*",))

    made = [checked("rows", "monday"), checked("rows", "tuesday"), checked("more rows", "monday")]
    assert len({one.key for one in made}) == 3
    after = [run_stage(night, "prepare", Body(), config={}, inputs=[one]) for one in made]
    assert [one.status for one in after] == ["done", "reused", "done"]
    assert made[0].digests.keys() == made[0].outputs.keys()


def test_a_link_counts_by_what_it_leads_to(night: Night, tmp_path: Path) -> None:
    """A snapshot that was moved with the whole mlruns folder is the same one."""

    def linked(home: Path, snapshot: str) -> Manifest:
        def write(folder: Path) -> dict[str, Any]:
            (folder / "pictures").symlink_to(home / snapshot / "pictures")
            return {}

        (home / snapshot).mkdir(parents=True, exist_ok=True)
        (home / snapshot / "pictures").write_text(f"paths under {home}")
        return run_stage(night, "prepare", write, config={}, salt=f"{home} {snapshot}")

    made = [linked(tmp_path / home, snapshot).content for home, snapshot in (("a", "x"), ("b", "x"), ("a", "y"))]
    assert made[0] == made[1] != made[2]


def test_each_night_keeps_the_manifests_it_used(night: Night) -> None:
    made = run_stage(night, "prepare", Body(), config={})
    kept = Manifest.load(night.folder / "manifests" / "prepare.json")
    assert (kept.key, kept.folder) == (made.key, made.folder)
    assert json.loads((made.path / "manifest.json").read_text())["figures"] == {"rows": 3}


@pytest.mark.parametrize("resumable", [False, True])
def test_what_a_kill_left_is_gone_on_with_only_where_that_is_safe(night: Night, resumable: bool) -> None:
    seen: list[list[str]] = []

    def body(folder: Path) -> dict[str, Any]:
        seen.append(sorted(path.name for path in folder.iterdir()))
        (folder / "half").write_text("half")
        if len(seen) == 1:
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        run_stage(night, "fine_tune", body, config={}, resumable=resumable)
    made = run_stage(night, "fine_tune", body, config={}, resumable=resumable)
    assert made.status == "done"
    assert seen == [[], ["half"] if resumable else []]


def test_two_runs_of_one_stage_do_not_meet(night: Night) -> None:
    def body(_: Path) -> dict[str, Any]:
        with pytest.raises(InputError, match="another run is making"):
            run_stage(night, "prepare", Body(), config={})
        return {}

    assert run_stage(night, "prepare", body, config={}).status == "done"


def test_a_full_disk_says_which_and_what_to_do(night: Night) -> None:
    def body(_: Path) -> dict[str, Any]:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InputError, match=r"no space left on the disk of .*finished stages are kept"):
        run_stage(night, "prepare", body, config={})


def test_what_killed_runs_left_of_a_stage_goes_with_the_next_one(night: Night) -> None:
    """Each night promotes under a key of its own, so no later night would find what a killed one left. A run at work keeps its folder."""
    home = night.root / "stages" / night.config.name / "promote"
    for name in ("killed", "working"):
        (home / f"{name}.partial").mkdir(parents=True)
        (home / f"{name}.partial" / "decision.json").write_text("half")
    with stage_lock(home / "killed.lock"):
        pass
    with stage_lock(home / "working.lock"):
        made = run_stage(night, "promote", Body(), config={})
    assert sorted(path.name for path in home.iterdir() if path.is_dir()) == sorted([made.key, "working.partial"])
    assert sorted(path.name for path in home.glob("*.lock")) == sorted([f"{made.key}.lock", "working.lock"])


def test_a_lock_whose_file_is_deleted_meanwhile_holds_nobody_off(tmp_path: Path) -> None:
    """Who tidies up deletes the file while holding the lock; the next one locks a file of its own, and a third meets that one."""
    path = tmp_path / "key.lock"
    with stage_lock(path):
        path.unlink()
        with stage_lock(path), pytest.raises(InputError, match="another run is making"), stage_lock(path):
            pass


def test_what_can_be_gone_on_with_stays(night: Night) -> None:
    left = night.root / "stages" / night.config.name / "fine_tune" / "killed.partial"
    left.mkdir(parents=True)
    run_stage(night, "fine_tune", Body(), config={}, resumable=True)
    assert left.is_dir()
