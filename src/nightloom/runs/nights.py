"""Which night of a recommender was the last to end well, here and in the store."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from nightloom.core.digests import check_file
from nightloom.core.errors import DamagedError
from nightloom.core.shell import typed
from nightloom.runs.stages import MANIFEST, Manifest, Night


def publish_folder(night: Night) -> None:
    """Publish a night's folder: what a person reads of it, and the manifests of its stages.

    The folder of a study (`run_directory` outside nights/) stays on its machine: a tuning goes on there.
    """
    place = night.folder.relative_to(night.root).as_posix()
    if place.startswith("nights/"):
        night.storage.publish(place, again=True)


def finish(night: Night, *, again: bool = False) -> None:
    """Publish a night that ended well, and make it the last one, here and in the store; one of a past day is only published.

    Args:
        night: which.
        again: it has ended before, and its report is another one now. Nights that have ended since are later.
    """
    publish_folder(night)
    if night.as_of or again:
        return
    # The store first: after a kill between the two the next night here takes it from there. The other way round it would find nothing
    # changed, and the store would never know.
    if night.storage.url is not None:
        night.storage.write_json(_pointer(night), {"night": night.night})
    _point_at(night, night.night)


def check_copy(folder: Path, stage: str, name: str) -> None:
    """Check a night's copy of a stage's output by the manifest beside it; nothing where the night has no such manifest.

    Args:
        folder: the night's.
        stage: which made the output.
        name: of the file, in the stage's folder and in the night's.

    Raises:
        DamagedError: the copy, or the manifest, is no longer what was written.
    """
    path = folder / "manifests" / f"{stage}.json"
    if path.is_file() and (expected := Manifest.load(path).digests.get(name)) is not None:
        check_file(folder / name, None, expected, f"Copy it from the stage's folder, or run `{typed('nightloom', 'night')}` again.")


def stages_whole(night: Night, stages: Iterable[str]) -> bool:
    """Whether what the last finished night made of some stages is as it was written; a folder that is not here counts as whole.

    Raises nothing: the stage that finds the damage again, when it is run, sets it aside and says so.
    """
    for stage in stages:
        path = night.latest / "manifests" / f"{stage}.json"
        if not path.exists():
            continue
        try:
            made = Manifest.load(path)
            folder = night.root / "stages" / night.config.name / stage / made.key
            if folder.exists():
                Manifest.load(folder / MANIFEST, may_lack_seal=False).check(folder)
        except DamagedError:
            return False
    return True


def fetch_latest(night: Night) -> None:
    """Make the store's last finished night the last one here, where it is another: an unchanged night is known by it on any machine."""
    said = night.storage.read_json(_pointer(night)) if night.storage.url is not None else None
    if said is None or night.latest.resolve().name == said["night"]:
        return
    place = f"nights/{night.config.name}/{said['night']}"
    if (night.root / place).exists() or night.storage.fetch(place):
        _point_at(night, said["night"])


def _pointer(night: Night) -> str:
    return f"nights/{night.config.name}/latest.json"


def _point_at(night: Night, name: str) -> None:
    link = night.latest.with_name(f".latest.{os.getpid()}")
    link.unlink(missing_ok=True)
    link.symlink_to(name)
    link.replace(night.latest)
