"""Events of a source that is read a piece at a time, made canonical and written as they come, so that memory does not grow with rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pandas as pd

from nightloom.config import DataConfig
from nightloom.core.errors import InputError
from nightloom.data.sources.raw import RawTable
from nightloom.data.tables.blocks import SpeltWriter, StoredTable
from nightloom.data.tables.canonical import Converted, convert_table, said_of_items, sorted_rows, tables_of
from nightloom.data.tables.oddities import Seen
from nightloom.data.tables.schema import Tables


@dataclass(frozen=True)
class Streamed:
    """Events that were written as they came.

    Attributes:
        first: the first piece, of which kinds and notes hold for all.
        events: the events without those that were left out.
        rejected: rows that could not be read, by file and row.
        seen: what is in the events' columns, those included that were left out.
        rows: read.
        left_out: events.
    """

    first: Converted
    events: StoredTable
    rejected: pd.DataFrame
    seen: Seen
    rows: int
    left_out: int

    def tables(self, others: Mapping[str, RawTable], data: DataConfig) -> Tables:
        """The other tables, made canonical, with no events.

        Raises:
            InputError: see `nightloom.data.tables.canonical.canonical`.
        """
        kinds = said_of_items(data, others)
        made = {name: convert_table(table, name, data, kinds) for name, table in others.items()}
        return tables_of({"events": replace(self.first, aside=self.first.aside.iloc[:0]), **made}, self.first.frame.iloc[:0], self.seen)

    def put_into(self, tables: Tables) -> Tables:
        """The tables with the events."""
        rejected = {"events": self.rejected} if len(self.rejected) else {}
        return replace(tables, events=cast(pd.DataFrame, self.events), rejected=rejected | tables.rejected)


def stream(pieces: Iterable[RawTable], data: DataConfig, path: Path, leave_out: Callable[[Tables], tuple[Tables, int]]) -> Streamed | None:
    """Read, convert and write the events, a piece at a time.

    Args:
        pieces: of the events' source, in its order.
        data: see `nightloom.data.tables.canonical.canonical`.
        path: where the events are written.
        leave_out: takes rows out of tables, each by itself, and says how many events.

    Returns:
        The events as `canonical` and `leave_out` would make them of the whole; None where that can not be told from the pieces, since what
        is decided by all rows differs from piece to piece, or a piece is refused: whoever reads the whole finds the same, or says why.
    """
    first: Converted | None = None
    columns: set[str] = set()
    seen, rows, left_out = Seen(), 0, 0
    rejected: list[pd.DataFrame] = []
    writer: SpeltWriter | None = None
    try:
        for piece in pieces:
            columns = columns or set(map(str, piece.frame))
            one = convert_table(piece, "events", data, {})
            first = first or one
            if (
                set(map(str, piece.frame)) != columns
                or one.decided != first.decided
                or "unsure" in one.decided
                or list(one.frame) != list(first.frame)
            ):
                return None
            rows += len(piece.frame)
            seen.add(one.frame)
            made, gone = leave_out(Tables(one.frame, rejected={"events": sorted_rows(one.aside)}))
            left_out += gone
            rejected += [made.rejected["events"]] if "events" in made.rejected else []
            writer = writer or SpeltWriter(path, made.events.iloc[:0])
            writer.add(made.events)
    except InputError:
        return None
    finally:
        if writer is not None:
            writer.__exit__()
    if first is None:
        return None
    return Streamed(first, StoredTable(path), sorted_rows(pd.concat(rejected)) if rejected else first.aside.iloc[:0], seen, rows, left_out)
