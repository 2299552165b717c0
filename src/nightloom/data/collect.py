"""Stage collect: the sources named in the config, and what the service has kept since, become an immutable snapshot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from nightloom.config import DataConfig
from nightloom.data.sources import named
from nightloom.data.sources.files import read_table
from nightloom.data.sources.raw import RawTable
from nightloom.data.sources.service_store import read_store
from nightloom.data.subsets.event_filter import filter_events
from nightloom.data.tables.canonical import canonical
from nightloom.data.tables.pictures import STORE, take_in
from nightloom.data.tables.snapshot import Snapshot, write_snapshot
from nightloom.data.tables.with_store import with_store
from nightloom.runs.locks import in_use
from nightloom.runs.stages import disk_of


def collect(name: str, data: DataConfig, root: Path, progress: Callable[[str], None] = lambda _: None) -> Snapshot:
    """Read the sources, make them canonical, and write the snapshot (or find it written).

    Args:
        name: of the recommender.
        data: where its tables are, and how they are read.
        root: the mlruns folder; snapshots are under `snapshots/<name>/`, downloads under `cache/downloads/`.
        progress: gets what is read, one line at a time.

    Raises:
        InputError: a source or the store is missing, damaged or unreachable, or its columns are not those of the config; the event filter
            leaves none.
    """
    in_use(root.resolve())  # a snapshot that is found written must not be trimmed before a stage reads it
    licence: str | None = None
    tables: dict[str, RawTable] = {}
    source: dict[str, Any] = {}
    if data.set is not None:
        fetched = named.fetch(data.set, root / "cache" / "downloads", progress)
        tables, licence = fetched.tables, fetched.licence
        source = {"set": data.set, "from": fetched.origin, "left_out": dict(fetched.left_out)}
    else:
        places = {"events": data.events, "items": data.items, "users": data.users, "links": data.links}
        for table, place in places.items():
            if place is not None:
                tables[table] = read_table(place, data, table)
                source[table] = tables[table].place
                progress(f"read {len(tables[table].frame):,} {table} from {source[table]}")
    made = canonical(tables, data)
    for table, rows in made.rejected.items():
        reason, count = next(iter(rows["reason"].value_counts().items()))
        progress(f"{table}: {len(rows):,} rows cannot be read, most often ({count:,}): {reason}")
    if (day := read_store(data.store, name, root)) is not None:
        made, dropped = with_store(made, day, data)
        progress(f"read {len(day.events):,} events and {len(day.items):,} items of the service's store, {day.place}")
        source["store"] = day.place
        source["store_rows"] = {str(writer): number for writer, number in day.through.items()}
        if dropped:
            source["left_out"] = source.get("left_out", {}) | dropped
            progress("; ".join(f"events: {count:,} rows left out: {reason}" for reason, count in dropped.items()))
    for note in made.notes:
        progress(f"note: {note}")
    if made.notes:
        source["notes"] = made.notes
    made, left_out = filter_events(made, data.event_filter)
    if left_out:
        source["left_out"] = source.get("left_out", {}) | left_out
        progress("; ".join(f"events: {rows:,} rows left out: {reason}" for reason, rows in left_out.items()))
    home, pictures = root / "snapshots" / name, None
    with disk_of(home):
        if (columns := [column for column, kind in made.features.items() if kind == "image"]) and made.items is not None:
            made.items, pictures = take_in(made.items, columns, _folder(data.items), home / STORE)
            lost = int(pictures["reason"].notna().sum())
            progress(f"read {len(pictures) - lost:,} pictures" + (f"; {lost:,} more can not be read" if lost else ""))
        return write_snapshot(made, home, source, licence, pictures)


def _folder(place: str | None) -> Path | None:
    """Where relative paths in the items table start from: its folder; None where it is no file."""
    if place is None or "://" in place:
        return None
    path = Path(place).expanduser()
    return path if path.is_dir() else path.parent
