"""What is done for a version before it serves: its artefact is fetched, checked, and its kernels are compiled.

Promotion does this, so that a service starts within seconds and the first answer waits for nothing. A service does it for a version that
another machine promoted.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from nightloom import __version__
from nightloom.core.errors import NightloomError
from nightloom.serving.settings import PREPARED, Champion

if TYPE_CHECKING:
    from nightloom.promotion.registered import Registered, Version

log = logging.getLogger("nightloom.serving")


def serving_folder(root: Path, name: str) -> Path:
    """Where the processes of a recommender's service tell each other what serves; it is made.

    Args:
        root: the mlruns folder.
        name: of the recommender.
    """
    folder = root / "serving" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def prepare(registry: Registered, version: Version, root: Path, *, again: bool = False) -> Champion | None:
    """Have a version ready to serve on this machine.

    Args:
        registry: where it is.
        version: which.
        root: the mlruns folder.
        again: check an artefact that was checked before, too.

    Returns:
        What a service is to open; None where the packages of the extra `serve` are not installed.

    Raises:
        NightloomError: the version does not answer as its bundle, or its files can not be had.
    """
    if find_spec("numba") is None:
        return None
    root = root.resolve()
    artefact = registry.fetch_serving(version, root / "cache")
    _check(artefact, again=again)
    known = _prepared(root, version, artefact)
    exclude_seen = registry.excludes_seen(version) if known is None else known.exclude_seen
    encoder = registry.fetch_text_encoder(version, artefact, root / "cache")
    ready = Champion(version.name, version.version, artefact, snapshot_of(root, version), exclude_seen, encoder)
    if ready != known:
        ready.write(serving_folder(root, version.name) / PREPARED)
    return ready


def _prepared(root: Path, version: Version, artefact: Path) -> Champion | None:
    """What was written of the same version before, which saves asking MLflow."""
    try:
        known = Champion.read(serving_folder(root, version.name) / PREPARED)
    except (OSError, ValueError):
        return None
    return known if (known.version, known.folder) == (version.version, artefact) else None


def snapshot_of(root: Path, version: Version) -> Path | None:
    """The snapshot that a version was trained on, if it is here."""
    found = root / "snapshots" / version.name / version.tags.get("nightloom.data_hash", "")[:16]
    if (found / "events.parquet").exists() and (found / "snapshot.json").is_file():
        return found
    log.warning("the snapshot of version %s is not at %s: users have only what they do from now on", version.version, found)
    return None


def _check(artefact: Path, *, again: bool) -> None:
    """Have an artefact checked, and its kernels compiled, in a process of its own; once for an installation."""
    mark = artefact.with_name(f".{artefact.name}.checked-{__version__}")
    if mark.exists() and not again:
        return
    command = [sys.executable, "-m", "nightloom.serving.model.warm", str(artefact)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise NightloomError(f"version of {artefact.name} is refused: {last[0]}")
    mark.touch()
