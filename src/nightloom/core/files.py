"""Files and folders that a reader, or a kill, never sees by halves."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PARTIAL = ".partial-"
"""How names of folders begin that are not whole yet."""
EVENTS = "events.parquet"
"""A snapshot's events: a file, or where they are many a folder of parts."""


def events_at(place: Path) -> Path:
    """The events at a place that names them, or their snapshot's folder."""
    return place / EVENTS if place.is_dir() and place.name != EVENTS else place


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` that takes its place when the block ends well, and is deleted when it raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.filename == str(temporary):
            error.filename = str(path)  # what a person knows
        raise
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write text so that a reader, or a kill, never sees half a file."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that a reader, or a kill, never sees half a file."""
    write_text(path, json.dumps(content, indent=2, sort_keys=False, default=str) + "\n")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder` that takes its name when the block ends well, and is deleted when it raises.

    Where another process made `folder` meanwhile, that one stays: who uses this names folders by their content.
    """
    with partial_folder(folder.parent) as partial:
        yield partial
        partial.chmod(0o755)
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise


@contextmanager
def partial_folder(home: Path) -> Iterator[Path]:
    """A new folder under `home` for what is not whole yet, deleted at the end. What killed processes left of theirs is deleted first."""
    home.mkdir(parents=True, exist_ok=True)
    for left in home.glob(f"{PARTIAL}*/"):
        _delete_left(left)
    handle = None
    while handle is None:  # one that looks for leftovers may take a new folder for one
        partial = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=home))
        handle = _locked(partial)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        os.close(handle)


def _delete_left(folder: Path) -> None:
    """Delete a folder that no process holds any more."""
    with suppress(OSError):
        if (handle := _locked(folder)) is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(handle)


def _locked(folder: Path) -> int | None:
    """A handle with the lock of a folder, which ends with the process, however it ends; None where another has it, or it is gone."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(handle), folder.stat()):
            return handle
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None
