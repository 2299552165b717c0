"""Events of a source that is read a piece at a time, made canonical and written as they come, so that memory does not grow with rows.

What was made of all rows up to a place is kept (`Begun`), so that the next night begins there where the source has grown at its end.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from nightloom.config import DataConfig
from nightloom.core.errors import InputError
from nightloom.data.sources.files import Piece
from nightloom.data.sources.places import BEGIN, Place
from nightloom.data.sources.raw import UNREADABLE_COLUMNS, RawTable
from nightloom.data.tables.blocks import PartsWriter, StoredTable, part_name, write_part
from nightloom.data.tables.canonical import Converted, convert_table, noted, said_of_items, sorted_rows, tables_of
from nightloom.data.tables.kept import link
from nightloom.data.tables.oddities import Seen
from nightloom.data.tables.schema import Tables
from nightloom.data.tables.snapshot import block_digest
from nightloom.data.tables.with_store import LaidOver
from nightloom.data.tables.without_people import People


@dataclass(frozen=True)
class Begun:
    """What was made of all rows before a place.

    Attributes:
        place: in the source.
        head: the canonical columns, without rows.
        decided: what holds for all rows: names of the source's columns, what was decided, kinds, notes.
        seen: see `Streamed`.
        rejected: rows that could not be read.
        rows: read.
        left_out: events of people who were forgotten.
        laid_out: events that the service's store leaves out, by reason.
        digests: of the full parts.
        rest: the rows after these.
    """

    place: Place
    head: pd.DataFrame
    decided: Mapping[str, Any]
    seen: Seen
    rejected: pd.DataFrame
    rows: int
    left_out: int
    laid_out: Mapping[str, int]
    digests: tuple[str, ...]
    rest: pa.Table

    @property
    def said(self) -> dict[str, Any]:
        """What is no table, as JSON values."""
        place, counts = (
            [self.place.files, self.place.rows],
            {"rows": self.rows, "left_out": self.left_out, "laid_out": dict(self.laid_out), "seen": self.seen.rows},
        )
        return {"place": place, "decided": dict(self.decided), **counts, "digests": list(self.digests)}

    def write(self, folder: Path, parts: Path) -> None:
        """Write the tables as files of a folder.

        Args:
            folder: an empty one.
            parts: where the full parts are, which are linked.
        """
        for number in range(len(self.digests)):
            link(parts / part_name(number), folder / part_name(number))
        self.head.to_parquet(folder / "head.parquet", index=False)
        self.rejected.to_parquet(folder / "rejected.parquet", index=False)
        write_part(folder / "rest.parquet", self.rest)
        self.seen.write(folder)

    @classmethod
    def read(cls, folder: Path, said: Mapping[str, Any]) -> Begun:
        """Read what `write` wrote, with what `said` gave."""
        return cls(
            Place(*said["place"]),
            pd.read_parquet(folder / "head.parquet"),
            said["decided"],
            Seen.read(folder, said["seen"]),
            pd.read_parquet(folder / "rejected.parquet"),
            said["rows"],
            said["left_out"],
            said["laid_out"],
            tuple(said["digests"]),
            pq.read_table(folder / "rest.parquet"),
        )


@dataclass(frozen=True)
class Streamed:
    """Events that were written as they came.

    Attributes:
        first: the first piece without its rows; its kinds and notes hold for all.
        events: the events without those that were left out.
        rejected: rows that could not be read, by file and row.
        seen: what is in the events' columns.
        rows: read.
        begun: what may be kept for the next night; None where there is nothing.
    """

    first: Converted
    events: StoredTable
    rejected: pd.DataFrame
    seen: Seen
    rows: int
    begun: Begun | None

    def tables(self, others: Mapping[str, RawTable], data: DataConfig, people: People) -> Tables:
        """The other tables, made canonical, with no events.

        Raises:
            InputError: see `nightloom.data.tables.canonical.canonical`.
        """
        kinds = said_of_items(data, others)
        made = {name: convert_table(table, name, data, kinds) for name, table in others.items()}
        made["events"] = self.first
        return noted(people.leave_out(tables_of(made, self.first.frame)), self.seen, self.first.notes)

    def put_into(self, tables: Tables) -> Tables:
        """The tables with the events."""
        rejected = {"events": self.rejected} if len(self.rejected) else {}
        return replace(tables, events=cast(pd.DataFrame, self.events), rejected=rejected | tables.rejected)


def stream(
    pieces: Iterable[Piece],
    data: DataConfig,
    path: Path,
    people: People,
    until: Place = BEGIN,
    begun: Begun | None = None,
    parts: Path | None = None,
    laid: LaidOver | None = None,
) -> Streamed | None:
    """Read, convert and write the events, a piece at a time.

    Args:
        pieces: of the events' source, in its order.
        data: see `nightloom.data.tables.canonical.canonical`.
        path: where the events are written.
        people: what is done to rows of people, to each by itself.
        until: the last place up to which what was made may be kept.
        begun: what was made of the rows before the first piece.
        parts: the folder with its parts.
        laid: lays the events of the service's store over them; None without a store.

    Returns:
        The events as they would be made of the whole; None where that can not be told from the pieces, since what is decided by all rows
        differs from piece to piece, or a piece is refused: whoever reads the whole finds the same, or says why.
    """
    made = _Made(data, path, people, laid)
    kept: Begun | None = None
    try:
        if begun and parts:
            made.begin(begun, parts)
        place: Place | None = None
        for piece in pieces:
            end = piece.end if piece.end is not None and piece.end <= until else None
            if place is not None and end is None:  # the last place before rows that may change
                kept = made.begun(place)
            if not made.add(piece.table):
                return None
            place = end
        if place is not None:
            kept = made.begun(place)
        if not made.lay_over():
            return None
    except InputError:
        return None
    finally:
        made.close()
    return made.streamed(kept) if made.first is not None else None


class _Made:
    """What was made so far."""

    def __init__(self, data: DataConfig, path: Path, people: People, laid: LaidOver | None) -> None:
        self.first: Converted | None = None
        self._data, self._path, self._people, self._laid = data, path, people, laid
        self._decided: dict[str, Any] = {}
        self._seen, self._rows = Seen(), 0
        self._rejected: list[pd.DataFrame] = []
        self._writer: PartsWriter | None = None

    def begin(self, begun: Begun, parts: Path) -> None:
        nothing = pd.DataFrame(columns=list(UNREADABLE_COLUMNS))
        self.first = Converted(begun.head, nothing, begun.decided["kinds"], begun.decided["notes"], {})
        self._decided, self._seen, self._rows = dict(begun.decided), begun.seen, begun.rows
        self._people.left_out += begun.left_out
        if self._laid:
            self._laid.left_out = dict(begun.laid_out)
        self._rejected = [begun.rejected] if len(begun.rejected) else []
        self._writer = self._new_writer(begun.head)
        self._writer.go_on([parts / part_name(number) for number in range(len(begun.digests))], begun.digests)
        self._writer.add(begun.rest.to_pandas())

    def add(self, table: RawTable) -> bool:
        """Make a piece; False where it differs from those before in what is decided by all rows."""
        if self.first is not None and table.frame.empty and table.unreadable.empty:  # an empty file
            return sorted(map(str, table.frame)) == self._decided["columns"]
        one = convert_table(table, "events", self._data, {})
        decided = {
            "columns": sorted(map(str, table.frame)),
            "decided": json.dumps(one.decided, sort_keys=True, default=str),
            "kinds": dict(one.kinds),
            "notes": list(one.notes),
        }
        if self.first is None:
            self.first, self._decided = replace(one, frame=one.frame.iloc[:0].copy(), aside=one.aside.iloc[:0]), decided
        told = ("columns", "decided")
        if (
            any(decided[name] != self._decided[name] for name in told)
            or "unsure" in one.decided
            or list(one.frame) != list(self.first.frame)
        ):
            return False
        self._rows += len(table.frame)
        made = self._people.leave_out(Tables(one.frame, rejected={"events": sorted_rows(one.aside)}))
        self._seen.add(made.events)
        made = self._people.rename(made)
        self._rejected += [made.rejected["events"]] if "events" in made.rejected else []
        self._writer = self._writer or self._new_writer(made.events.iloc[:0])
        self._writer.add(self._laid.stay(made.events) if self._laid else made.events)
        return True

    def lay_over(self) -> bool:
        """Add the store's events; False where they must be seen beside all others."""
        if self._laid is None or self._writer is None or self.first is None:
            return True
        added = self._laid.added(self.first.frame)
        if added is not None:
            self._writer.add(added)
        return added is not None

    def begun(self, place: Place) -> Begun | None:
        """What may be kept of all rows so far; None where they fill no part."""
        if self._writer is None or self.first is None or not self._writer.digests:
            return None
        return Begun(
            place,
            self.first.frame,
            self._decided,
            self._seen.copy(),
            self._aside(),
            self._rows,
            self._people.left_out,
            dict(self._laid.left_out) if self._laid else {},
            tuple(self._writer.digests),
            self._writer.waiting(),
        )

    def streamed(self, kept: Begun | None) -> Streamed | None:
        if self.first is None or self._writer is None:
            return None
        return Streamed(self.first, StoredTable(self._path, self._writer.digests), self._aside(), self._seen, self._rows, kept)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.__exit__()

    def _aside(self) -> pd.DataFrame:
        return sorted_rows(pd.concat(self._rejected) if self._rejected else pd.DataFrame(columns=list(UNREADABLE_COLUMNS)))

    def _new_writer(self, head: pd.DataFrame) -> PartsWriter:
        return PartsWriter(self._path, head, block_digest(head))
