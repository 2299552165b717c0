"""`bundle.json`: what a bundle is, and the size and SHA-256 of each of its files.

Needs the standard library alone, since the service opens bundles with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from nightloom import __version__
from nightloom.core.digests import check_listing, listing, read_sealed, write_sealed
from nightloom.core.errors import DamagedError, InputError

FILE = "bundle.json"
FORMAT = 3
"""Since 3 `bundle.json` has a digest of itself. The first format had no number: see `nightloom.packaging.first_format`."""
REMEDY = "Fetch the version again (delete the folder first), go back one with nightloom rollback NAME, or run the night again with --force."


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
            DamagedError: it is no longer what was written.
            InputError: there is none, or it is of a format of a newer Nightloom.
        """
        path = folder / FILE
        if not path.is_file():
            raise InputError(f"{folder}: not a whole bundle, {FILE} is missing. Name the bundle folder of a finished run.")
        content = read_sealed(path, REMEDY, may_lack_seal=True)
        try:
            if int(content["format"]) > FORMAT:
                raise InputError(
                    f"{path}: format {content['format']}, written by Nightloom {content['nightloom']}. This one reads up to {FORMAT}: "
                    "update it."
                )
            if int(content["format"]) == FORMAT:
                read_sealed(path, REMEDY)
            return cls(**{name: content[name] for name in cls.__dataclass_fields__})
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedError(path, f"it can not be read ({error!r})", REMEDY) from error

    def check(self, folder: Path) -> None:
        """Check that every file is there whole: sizes each time, digests once in the life of a process.

        Raises:
            DamagedError: a file is missing or damaged.
        """
        check_listing(folder, self.files, REMEDY)


def seal(folder: Path, encoder: Mapping[str, Any]) -> None:
    """Complete `bundle.json`, which so far holds what the recommender says of itself; nothing may be written to the folder afterwards.

    Args:
        folder: the bundle with all its files.
        encoder: see `Manifest`.
    """
    sections = json.loads((folder / FILE).read_text(encoding="utf-8"))
    said = {"format": FORMAT, "nightloom": __version__, **sections, "encoder": dict(encoder), "files": listing(folder, FILE)}
    write_sealed(folder / FILE, said)
