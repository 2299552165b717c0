"""Checkpoints that survive a kill at any moment: written beside, flushed, renamed; the last two are kept."""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch

NAMES = ("checkpoint.pt", "checkpoint.before.pt")
SHARDS = "language_model.*.shards"
"""Folders beside a checkpoint with what is shared out over the workers; `*` is phase and epoch."""


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint; the former one stays as the one before."""
    last, before = (folder / name for name in NAMES)
    temporary = folder / f".{NAMES[0]}.writing"  # one name, so that what a kill leaves is written over
    try:
        with temporary.open("wb") as handle:
            torch.save(state, handle)
            handle.flush()
            os.fsync(handle.fileno())
        if last.exists():
            last.replace(before)
        temporary.replace(last)
    finally:
        temporary.unlink(missing_ok=True)


def load(folder: Path, run: str) -> dict[str, Any] | None:
    """The latest readable checkpoint of a run, or None.

    Args:
        folder: where `save` wrote.
        run: hash of the run; a checkpoint of another run is not taken up.
    """
    for name in NAMES:
        try:
            # weights_only: a checkpoint is data, never code. zipfile checks each record's CRC, which torch does not.
            with zipfile.ZipFile(folder / name) as archive:
                if archive.testzip() is not None:
                    continue
            state: dict[str, Any] = torch.load(folder / name, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, KeyError, zipfile.BadZipFile, pickle.UnpicklingError):
            continue
        if state.get("run") == run:
            return state
    return None


def tidy(folder: Path, keep: int = len(NAMES)) -> None:
    """Delete shards that no checkpoint names any more: all but the last ones."""
    found = sorted(folder.glob(SHARDS), key=lambda place: place.stat().st_mtime)
    for old in found[: len(found) - keep]:
        shutil.rmtree(old, ignore_errors=True)


def remove(folder: Path) -> None:
    """Delete the checkpoints of a finished run."""
    for name in NAMES:
        (folder / name).unlink(missing_ok=True)
    tidy(folder, keep=0)
