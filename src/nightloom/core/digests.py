"""SHA-256 of files, and what is done about a file that is no longer what was written. Needs the standard library alone.

A file is read through once in the life of a process, and again when its size, its times or its inode have changed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nightloom.core.errors import DamagedError
from nightloom.core.files import write_text

SEAL = "sha256"
"""Last key of a sealed JSON file: SHA-256 of the file's bytes, with zeros in place of these digits."""
DAMAGED = ".damaged-"
"""What is set aside has this and a number after its name."""
SETTLED_SECONDS = 2.0
"""A file that was changed a moment ago may change again without its times moving: the clocks of file systems are coarse."""
_UNSEALED = "0" * 64
_LOGGER = logging.getLogger("nightloom")

Listing = Mapping[str, Mapping[str, Any]]
"""Name of a file, relative to a folder -> `{"size": bytes, "sha256": hex}`."""

_known: dict[tuple[int, ...], str] = {}


def digest(path: Path) -> str:
    """SHA-256 of a file's content, hex; links are followed."""
    with path.open("rb") as file:
        at = os.fstat(file.fileno())
        key = (at.st_dev, at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns)
        if key not in _known:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            if time.time() - max(at.st_mtime, at.st_ctime) < SETTLED_SECONDS:
                return found
            _known[key] = found
    return _known[key]


def listing(folder: Path, leave_out: str) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of each file of a folder, in the order of their names.

    Args:
        folder: with files, also in folders below.
        leave_out: name of the file that will hold the listing.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / leave_out)
    return {path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": digest(path)} for path in paths}


def folder_digest(folder: Path) -> str:
    """SHA-256, hex, over the names and the content of all files of a folder."""
    return hashlib.sha256(json.dumps(listing(folder, ""), sort_keys=True).encode()).hexdigest()


def check_file(path: Path, size: int | None, sha256: str, remedy: str = "") -> None:
    """Check that a file is what was written: its size each time, its content once in the life of a process.

    Args:
        path: the file.
        size: bytes; None where only the digest is known.
        sha256: hex.
        remedy: what a person can do, in a sentence.

    Raises:
        DamagedError: it is missing, or holds something else.
    """
    found = path.stat().st_size if path.is_file() else None
    if found is None:
        raise DamagedError(path, "it is missing", remedy)
    if size is not None and found != size:
        raise DamagedError(path, f"it holds {found:,} bytes instead of {size:,}", remedy)
    if (content := digest(path)) != sha256:
        raise DamagedError(path, differs(content, sha256), remedy)


def differs(found: str, expected: str) -> str:
    """What is wrong with a file by its digest, in words."""
    return f"its SHA-256 begins with {found[:16]}, expected {expected[:16]}"


def check_listing(folder: Path, files: Listing, remedy: str = "") -> None:
    """Check every file of a folder, all sizes first; see `check_file`.

    Raises:
        DamagedError: a file is missing, or holds something else.
    """
    for name, said in files.items():
        size = (folder / name).stat().st_size if (folder / name).is_file() else None
        if size != said["size"]:
            check_file(folder / name, said["size"], said["sha256"], remedy)
    for name, said in files.items():
        check_file(folder / name, said["size"], said["sha256"], remedy)


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON that holds a digest of itself, so that not one changed bit passes for what was written."""
    text = json.dumps({**content, SEAL: _UNSEALED}, indent=2, default=str) + "\n"
    before, _, after = text.rpartition(_UNSEALED)
    write_text(path, before + hashlib.sha256(text.encode()).hexdigest() + after)


def read_sealed(path: Path, remedy: str = "", *, may_lack_seal: bool = False) -> dict[str, Any]:
    """Read what `write_sealed` wrote, without the digest.

    Args:
        path: the file.
        remedy: what a person can do, in a sentence.
        may_lack_seal: whether it may come from a version of Nightloom that wrote none.

    Raises:
        DamagedError: it is missing, or not what was written.
    """
    if not path.is_file():
        raise DamagedError(path, "it is missing", remedy)
    raw = path.read_bytes()
    try:
        content = dict(json.loads(raw))
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedError(path, f"it can not be read ({error})", remedy) from error
    said = content.pop(SEAL, None)
    if said is None and may_lack_seal:
        return content
    if said is None:
        raise DamagedError(path, f"it has no digest of itself ({SEAL}); an older Nightloom wrote none", remedy)
    before, _, after = raw.rpartition(f'"{said}"'.encode())
    found = hashlib.sha256(before + f'"{_UNSEALED}"'.encode() + after).hexdigest()
    if found != said:
        raise DamagedError(path, differs(found, str(said)), remedy)
    return content


def set_aside(path: Path, damage: DamagedError, then: str) -> None:
    """Rename what is damaged, so that it can be made again and still be looked at, and say so in one line.

    Args:
        path: file or folder; where another process took it away meanwhile, nothing is renamed.
        damage: what was found.
        then: what happens now, for example "it is made again".
    """
    number = 1
    while (away := path.with_name(f"{path.name}{DAMAGED}{number}")).exists():
        number += 1
    try:
        path.rename(away)
    except FileNotFoundError:
        return
    warn(f"{damage.path}: damaged, {damage.found}. Set aside as {away.name}; {then}.")


def warn(line: str) -> None:
    """Say something that a person should see, and that ends nothing: in a night's console and log, else on standard error."""
    _LOGGER.warning(line, extra={"nightloom": True})
