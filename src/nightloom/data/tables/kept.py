"""What a stage keeps from one night for the next, so that rows which were there before are not gone through again.

    mlruns/cache/parts/<name>/<stage>/kept.json + files

It holds good as long as its key is the same: of the code, of the config, and of whoever asked to be forgotten. Where anything of it is
missing or no longer what was written the night reads everything, and the result is the same. `nightloom forget` deletes it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nightloom.core.digests import check_listing, listing, read_sealed, warn, write_sealed
from nightloom.core.errors import DamagedError
from nightloom.core.files import whole_folder

FOLDER = Path("cache") / "parts"
"""Under the mlruns folder."""
SAID = "kept.json"
MOST = 30
"""Nights whose new rows are kept in files of their own; after so many everything is gone through once more."""
_FILES, _KEY = "files", "key"


def kept_home(root: Path, name: str) -> Path:
    """The folder of what is kept of a recommender."""
    return root / FOLDER / name


def take(home: Path, key: str, into: Path) -> dict[str, Any] | None:
    """Find what was kept, and link its files into a folder, where they stay whatever becomes of the kept ones.

    Args:
        home: where it was kept.
        key: that it must have.
        into: the folder; it exists and is empty.

    Returns:
        What was said; None where nothing was kept under that key, or it is damaged, which is told.
    """
    if not (home / SAID).is_file():
        return None
    try:
        said = read_sealed(home / SAID)
        if said.get(_KEY) != key:
            return None
        for name in said[_FILES]:
            link(home / name, into / name)
        check_listing(into, said[_FILES])
        os.utime(home / SAID)  # it is of use: `nightloom trim` leaves it
    except (DamagedError, OSError, KeyError) as damage:
        warn(f"{home}: what the last night kept is damaged ({damage}). Everything is read again.")
        drop(home)
        shutil.rmtree(into)
        into.mkdir()
        return None
    return said


@contextmanager
def keeping(home: Path, key: str, said: Mapping[str, Any]) -> Iterator[Path]:
    """A folder whose files are kept when the block ends well, in the place of those that were kept before.

    Where another night keeps its own at the same moment, one of both stays.
    """
    with whole_folder(home) as partial:
        yield partial
        write_sealed(partial / SAID, {_KEY: key, **said, _FILES: listing(partial, SAID)})
        drop(home)


def drop(home: Path) -> None:
    """Delete what was kept; by halves it does not look whole."""
    with suppress(FileNotFoundError):
        (home / SAID).unlink()
    shutil.rmtree(home, ignore_errors=True)


def link_all(source: Path, target: Path) -> None:
    """Give all files of a folder, and of those below it, a second name in another folder."""
    for file in (one for one in source.rglob("*") if one.is_file()):
        link(file, target / file.relative_to(source))


def link(source: Path, target: Path) -> None:
    """Give a file that is never changed a second name; where the file system can not, a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)
