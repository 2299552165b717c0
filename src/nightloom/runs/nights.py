"""Which night of a recommender was the last to end well, here and in the store."""

from __future__ import annotations

import os

from nightloom.runs.stages import Night


def publish_folder(night: Night) -> None:
    """Publish a night's folder: what a person reads of it, and the manifests of its stages.

    The folder of a study (`run_directory` outside nights/) stays on its machine: a tuning goes on there.
    """
    place = night.folder.relative_to(night.root).as_posix()
    if place.startswith("nights/"):
        night.storage.publish(place, again=True)


def finish(night: Night) -> None:
    """Publish a night that ended well, and make it the last one, here and in the store."""
    publish_folder(night)
    _point_at(night, night.night)
    if night.storage.url is not None:
        night.storage.write_json(_pointer(night), {"night": night.night})


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
