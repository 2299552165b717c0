"""A named set that is a few files of its publisher in a local folder: found, checked by SHA-256, and read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pandas as pd

from nightloom.core.errors import InputError
from nightloom.data.sources.raw import RawTable

FOLDER = "NIGHTLOOM_DATA"
"""Environment variable with a folder that holds downloaded sets."""


@dataclass(frozen=True)
class Fetched:
    """Raw tables of a named set under canonical column names, and where they came from.

    Attributes:
        tables: table -> rows.
        origin: file or folder that was read.
        licence: terms of use, for display.
        left_out: reason -> rows of the publisher's files that have no place in the tables.
    """

    tables: dict[str, RawTable]
    origin: str
    licence: str
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Content:
    """What a set's files hold.

    Attributes:
        tables: table -> rows, columns under canonical names. In `events` a column of pandas' type category is a code even
            where it looks like a number.
        left_out: reason -> rows that are left out on purpose, so that none is lost unseen.
    """

    tables: dict[str, pd.DataFrame]
    left_out: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class FileSet:
    """A named set and the files by which it is known.

    Attributes:
        title: name for messages.
        folder: name of its folder within the folder of downloaded sets.
        files: file name -> SHA-256 (hex).
        publisher: where the files can be had, in words.
        licence: terms of use.
        read: from the paths of the files, in the order of `files`, to their content.
    """

    title: str
    folder: str
    files: Mapping[str, str]
    publisher: str
    licence: str
    read: Callable[..., Content]

    def find(self, places: list[Path], progress: Callable[[str], None]) -> Fetched:
        """Read the set from the first place that holds it, in its folder or directly.

        Args:
            places: folders to look in.
            progress: told under which terms the data are had, and what is left out.

        Raises:
            InputError: no place holds the set, or a file has another digest.
        """
        for folder in (folder for place in places for folder in (place / self.folder, place)):
            if all((folder / name).is_file() for name in self.files):
                return self._read(folder, progress)
        incomplete = [place / self.folder for place in places if (place / self.folder).is_dir()]
        lacking = ", ".join(name for name in self.files if incomplete and not (incomplete[0] / name).is_file())
        raise InputError(
            f"{self.title} is not here{f': {incomplete[0]} lacks {lacking}' if incomplete else ''}. It is not downloaded by itself: "
            f"get {', '.join(self.files)} from {self.publisher}, put them into a folder named {self.folder}, "
            f"and set {FOLDER} to the folder that holds it."
        )

    def _read(self, folder: Path, progress: Callable[[str], None]) -> Fetched:
        for name, expected in self.files.items():
            found = sha256((folder / name).read_bytes()).hexdigest()
            if found != expected:
                raise InputError(
                    f"{self.title}: {name} of {folder} has SHA-256 {found}, expected {expected}. It is damaged or another edition: "
                    f"get it again from {self.publisher}."
                )
        progress(self.licence)
        content = self.read(*(folder / name for name in self.files))
        for reason, rows in content.left_out.items():
            progress(f"{self.title}: {rows:,} rows left out: {reason}")
        tables = {table: RawTable.of(frame, f"{self.title} ({folder.name})") for table, frame in content.tables.items()}
        return Fetched(tables, folder.name, self.licence, content.left_out)
