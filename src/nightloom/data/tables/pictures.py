"""Pictures of items: the cells of an image column become keys of what the pictures show, so that a changed picture is changed data.

A cell may hold a path, bytes, or the two as datasets on the hub have them (`{"bytes": ..., "path": ...}`). In the canonical items it
is the SHA-256 of the picture's bytes; where each picture lies is kept beside the tables and is no part of their content.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd

PICTURES = "pictures.parquet"
"""Beside the tables: `key`, `path` and, where the picture could not be read, `reason`."""

STORE = "pictures"
"""Folder beside a recommender's snapshots: pictures that came as bytes."""

UNREADABLE = "unreadable: "
"""How the key of a picture begins that could not be read; its name follows."""

MOST_BYTES = 1 << 28
"""A larger file is no picture: rows may name whatever lies on the machine."""

READERS = 8
"""Files read at once: on a network's disk reading is mostly waiting."""


@dataclass(frozen=True)
class Picture:
    """One picture that a cell names.

    Attributes:
        key: SHA-256 (hex) of its bytes, or `UNREADABLE` and its name.
        path: the file that holds it, or its name where there is none.
        reason: why it could not be read; None where it could.
    """

    key: str
    path: str
    reason: str | None = None


def take_in(items: pd.DataFrame, columns: Sequence[str], base: Path | None, store: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read the pictures of some columns.

    Args:
        items: one row an item; the columns hold paths, bytes, or nothing.
        columns: the image columns.
        base: folder that relative paths start from; None where there is none (a table in a database).
        store: pictures that come as bytes are kept here as files, each once, named by their key.

    Returns:
        The items with keys (null where a cell is empty) in place of pictures, and a row for each picture: `key`, `path`, `reason`.
    """
    found: dict[str, Picture] = {}
    keyed = {}
    for column in columns:
        cells = [_plain(cell) for cell in items[column]]
        named = sorted({cell for cell in cells if isinstance(cell, str)})
        with ThreadPoolExecutor(READERS) as readers:
            files = dict(zip(named, readers.map(lambda name: _from_file(name, base), named), strict=True))
        pictures = [files[cell] if isinstance(cell, str) else _from_cell(cell, store) for cell in cells]
        found |= {picture.key: picture for picture in pictures if picture is not None}
        keyed[column] = pd.Series([picture and picture.key for picture in pictures], index=items.index, dtype="str")
    rows = [found[key] for key in sorted(found)]
    places = pd.DataFrame({name: [getattr(row, name) for row in rows] for name in ("key", "path", "reason")}, dtype="str")
    return items.assign(**keyed), places


def places(file: Path) -> dict[str, Picture]:
    """The pictures of a snapshot by key; `file` is its `PICTURES`."""
    frame = pd.read_parquet(file)
    rows = zip(frame["key"], frame["path"], frame["reason"], strict=True)
    return {key: Picture(key, path, None if pd.isna(reason) else reason) for key, path, reason in rows}


def content(picture: Picture) -> tuple[bytes, str | None]:
    """A picture's bytes as they were when it was taken in, or why there are none."""
    if picture.reason:
        return b"", picture.reason
    try:
        read = Path(picture.path).read_bytes()
    except OSError as error:
        return b"", _why(error)
    return (read, None) if sha256(read).hexdigest() == picture.key else (b"", "changed while the night ran")


def link(pictures: Path | None, folder: Path) -> None:
    """Let a stage's folder lead to the snapshot's pictures; nothing where it has none."""
    if pictures is not None:
        (folder / PICTURES).unlink(missing_ok=True)
        (folder / PICTURES).symlink_to(pictures.resolve())


def linked(folder: Path) -> Path | None:
    """What `link` made in a folder, if anything."""
    return folder / PICTURES if (folder / PICTURES).exists() else None


def holds_bytes(cells: Iterable[Any]) -> bool:
    """Whether the first cell that says anything is bytes, or a picture as datasets on the hub have it."""
    first = next((cell for cell in cells if not (cell is None or cell is pd.NA or (isinstance(cell, float) and cell != cell))), None)
    return isinstance(first, (bytes, bytearray, memoryview)) or (isinstance(first, Mapping) and "bytes" in first)


def _plain(cell: Any) -> Any:
    """A path as str, a picture as bytes, None for nothing, and anything else as it is."""
    if isinstance(cell, Mapping) and {"bytes", "path"} & set(cell):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, (bytearray, memoryview)):
        cell = bytes(cell)
    if isinstance(cell, (str, bytes)):
        return cell if cell.strip() else None
    return None if cell is None or cell is pd.NA or (isinstance(cell, float) and cell != cell) else cell


def _from_file(name: str, base: Path | None) -> Picture:
    """The picture that a path names."""
    if "://" in name:
        return _lost(name, "an address; fetch the picture and name the file")
    path = Path(name.strip()).expanduser()
    if not path.is_absolute() and base is None:
        return _lost(name, "a relative path, and the items come from no file that it could start from; write it from the root")
    path = path if base is None else base / path
    try:
        about = path.stat()
        if not (stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode)):
            return _lost(name, "neither a file nor a folder, but a device or the like")  # some never end
        if about.st_size > MOST_BYTES:
            return _lost(name, f"{about.st_size:,} bytes, more than a picture has ({MOST_BYTES:,})")
        read = path.read_bytes()
    except (OSError, ValueError) as error:
        return _lost(name, _why(error))
    return Picture(sha256(read).hexdigest(), str(path.absolute())) if read else _lost(name, "an empty file")


def _from_cell(cell: Any, store: Path) -> Picture | None:
    """The picture in a cell that holds no path."""
    if cell is None:
        return None
    if not isinstance(cell, bytes):
        return _lost(str(cell), f"neither a path nor bytes, but {type(cell).__name__}")
    key = sha256(cell).hexdigest()
    path = store / key[:2] / key
    if not path.exists() or path.read_bytes() != cell:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{key}.{os.getpid()}.{threading.get_ident()}.partial")  # two nights may keep the same picture at once
        partial.write_bytes(cell)
        partial.replace(path)
    return Picture(key, str(path.absolute()))


def _lost(name: str, reason: str) -> Picture:
    return Picture(UNREADABLE + name, name, reason)


def _why(error: OSError | ValueError) -> str:
    return "no such file" if isinstance(error, FileNotFoundError) else str(getattr(error, "strerror", None) or error)
