"""Rows that were numbered and dealt to buckets, kept from night to night: where parts of the events were there before they are not read.

Each night adds a folder of bucket files of its new parts. The verdicts on all rows, and all that follows from them, are made anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nightloom.core.digests import digest
from nightloom.data.tables.blocks import StoredTable
from nightloom.data.tables.coded import files_of
from nightloom.data.tables.kept import MOST, keeping, link_all, take

TEXTS = ("users", "items", "names")


@dataclass
class Dealt:
    """The rows of some parts, dealt to buckets.

    Attributes:
        parts: digests of the parts.
        count: of buckets.
        types: of the columns, by name.
        folders: with the files of the buckets, oldest first.
        texts: users, items and names of events, by their numbers.
        names_of: rows of each event name, int64 [names].
    """

    parts: tuple[str, ...]
    count: int
    types: Mapping[str, np.dtype[Any]]
    folders: Sequence[Path]
    texts: Mapping[str, pa.LargeStringArray]
    names_of: NDArray[np.int64]


class KeptRows:
    """What is kept of dealt rows.

    Args:
        home: its folder (`nightloom.data.tables.kept`).
        key: under which it holds good.
        events: of tonight, in parts.
        scratch: a folder for tonight's files; it exists.
    """

    def __init__(self, home: Path, key: str, events: StoredTable, scratch: Path) -> None:
        self._home, self._key, self._scratch = home, key, scratch
        self.parts = tuple(digest(file) for file in files_of(events.path))

    def begun(self) -> Dealt | None:
        """The rows of the parts that were there before; None where there are none, or too many nights added to them."""
        into = self._scratch / "before"
        into.mkdir()
        said = take(self._home, self._key, into)
        if said is None or said["parts"] != list(self.parts[: len(said["parts"])]) or said["nights"] >= MOST:
            return None
        if len(said["parts"]) >= len(self.parts):  # the last part is never kept
            return None
        texts = {name: pq.read_table(into / f"{name}.parquet")["value"].combine_chunks() for name in TEXTS}
        types = {name: np.dtype(kind) for name, kind in said["types"].items()}
        folders = [into / str(night) for night in range(said["nights"])]
        return Dealt(tuple(said["parts"]), said["count"], types, folders, texts, np.array(said["names_of"], dtype=np.int64))

    def hold(self, dealt: Dealt) -> None:
        """Link the files of dealt rows, before they are sorted in their place."""
        self._dealt = dealt
        for number, folder in enumerate(dealt.folders):
            link_all(folder, self._scratch / "held" / str(number))

    def keep(self) -> None:
        """Keep what is held for the next night."""
        dealt = self._dealt
        said = {
            "parts": list(dealt.parts),
            "count": dealt.count,
            "types": {name: kind.str for name, kind in dealt.types.items()},
            "nights": len(dealt.folders),
            "names_of": dealt.names_of.tolist(),
        }
        with keeping(self._home, self._key, said) as folder:
            link_all(self._scratch / "held", folder)
            for name, values in dealt.texts.items():
                pq.write_table(pa.table({"value": values}), folder / f"{name}.parquet")
