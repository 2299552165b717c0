"""Locks under the mlruns folder: of one stage, and of the whole folder while something is deleted there.

They are the file system's, so they hold between processes of one machine, and end with the process, however it ends.
"""

from __future__ import annotations

import fcntl
import functools
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO
from weakref import WeakValueDictionary

from filelock import FileLock, Timeout

from nightloom.core.errors import InputError

PATIENCE = 0.5
"""Seconds after which a lock counts as held: who tidies up may hold it for a moment, and delete its file."""
IN_USE = ".in-use"
"""File under the mlruns folder whose lock all who work there share."""


@contextmanager
def stage_lock(path: Path) -> Iterator[None]:
    """Hold the lock of a stage's folder while the block runs.

    Args:
        path: the lock file; its name without the suffix is the folder's.

    Raises:
        InputError: another run holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout as error:
        raise InputError(f"another run is making {path.with_suffix('')} now. Wait for it, or stop it, then start again.") from error
    try:
        yield
    finally:
        lock.release()


_held: WeakValueDictionary[Path, IO[str]] = WeakValueDictionary()
"""Roots that this process works under, with the handle of its lock."""


@functools.cache
def in_use(root: Path) -> IO[str]:
    """Say that this process works under an mlruns folder: until it ends, nothing is trimmed there (`nightloom.promotion.trim`).

    Where something is being trimmed now, this waits for its end. The lock is shared and outlives the thread that takes it, which filelock's
    read-write lock does not do: that one belongs to a thread.
    """
    root.mkdir(parents=True, exist_ok=True)
    handle = (root / IN_USE).open("w")
    fcntl.flock(handle, fcntl.LOCK_SH)
    _held[root] = handle
    return handle  # kept by the cache: the system releases the lock when the process ends


@contextmanager
def not_in_use(root: Path) -> Iterator[None]:
    """Be the only process that works under an mlruns folder while the block runs; one that starts there waits.

    A process that works there itself may ask for it between two pieces of work, and shares the folder again afterwards.

    Raises:
        InputError: another process works there, or there is no such folder.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder. Set --root to the mlruns folder.")
    own = _held.get(root)
    with nullcontext(own) if own else (root / IN_USE).open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if own:  # a lock that can not be changed may be lost in the attempt
                fcntl.flock(own, fcntl.LOCK_SH)
            raise InputError(f"a night or another run is at work under {root}. Start again when it has ended.") from error
        try:
            yield
        finally:
            if own:
                fcntl.flock(own, fcntl.LOCK_SH)
