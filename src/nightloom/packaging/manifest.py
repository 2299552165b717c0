"""`bundle.json`: what a bundle is, and the size and SHA-256 of each of its files.

Needs the standard library alone, since the service opens bundles with it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from nightloom import __version__
from nightloom.core.errors import InputError
from nightloom.core.files import write_json

FILE = "bundle.json"
FORMAT = 2
"""The first format had no number: see `nightloom.packaging.first_format`."""
REMEDY = "Fetch the version again (delete the folder first), go back one with nightloom rollback NAME, or run the night again with --force."

_verified: set[str] = set()
"""Digests of the manifests whose files this process has already read through."""


@dataclass(frozen=True)
class Manifest:
    """What `bundle.json` holds.

    Attributes:
        format: number of the format.
        nightloom: version of Nightloom that wrote it.
        family: name under which results are reported.
        model: the model section of the run's config.
        shape: what the network's layers depend on besides that.
        weights: scorer -> its fusion weight; the network has the rest.
        heads: head -> whether the bundle has it (`reranker`, `labels`).
        encoder: which pretrained models made the vectors of texts and pictures; empty where that was not recorded.
        files: path in the bundle -> `{"size": bytes, "sha256": hex}`.
    """

    format: int
    nightloom: str
    family: str
    model: Mapping[str, Any]
    shape: Mapping[str, Any]
    weights: Mapping[str, float]
    heads: Mapping[str, bool]
    encoder: Mapping[str, Any]
    files: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the manifest of a bundle.

        Raises:
            InputError: there is none, it can not be read, or it is of a format of a newer Nightloom.
        """
        path = folder / FILE
        if not path.is_file():
            raise InputError(f"{folder}: not a whole bundle, {FILE} is missing. Name the bundle folder of a finished run.")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if int(content["format"]) > FORMAT:
                raise InputError(
                    f"{path}: format {content['format']}, written by Nightloom {content['nightloom']}. This one reads up to {FORMAT}: "
                    "update it."
                )
            return cls(**{name: content[name] for name in cls.__dataclass_fields__})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: damaged, it can not be read ({error!r}). {REMEDY}") from error

    def check(self, folder: Path) -> None:
        """As `check_files`, of this bundle's files."""
        check_files(folder, FILE, self.files)


def check_files(folder: Path, manifest: str, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that every file is there whole: sizes each time, digests once in the life of a process.

    Args:
        folder: of the files.
        manifest: name of the file in it that names them.
        files: path in the folder -> `{"size": bytes, "sha256": hex}`.

    Raises:
        InputError: a file is missing or damaged.
    """
    for name, said in files.items():
        size = (folder / name).stat().st_size if (folder / name).is_file() else None
        if size != said["size"]:
            found = "it is missing" if size is None else f"it holds {size:,} bytes instead of {said['size']:,}"
            raise InputError(f"{folder / name}: damaged, {found}. {REMEDY}")
    known = f"{folder.resolve()} {digest(folder / manifest)}"
    if known in _verified:
        return
    for name, said in files.items():
        if digest(folder / name) != said["sha256"]:
            raise InputError(f"{folder / name}: damaged, its SHA-256 is not the one in {manifest}. {REMEDY}")
    _verified.add(known)


def seal(folder: Path, encoder: Mapping[str, Any]) -> None:
    """Complete `bundle.json`, which so far holds what the recommender says of itself; nothing may be written to the folder afterwards.

    Args:
        folder: the bundle with all its files.
        encoder: see `Manifest`.
    """
    sections = json.loads((folder / FILE).read_text(encoding="utf-8"))
    files = sizes_and_digests(folder, FILE)
    write_json(folder / FILE, {"format": FORMAT, "nightloom": __version__, **sections, "encoder": dict(encoder), "files": files})


def sizes_and_digests(folder: Path, manifest: str) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file of a folder but its manifest, by path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / manifest)
    return {path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": digest(path)} for path in paths}


def digest(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
