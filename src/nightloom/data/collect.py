"""Stage collect: the sources named in the config, and what the service has kept since, become an immutable snapshot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from nightloom.config import DataConfig, EventFilterConfig
from nightloom.core.digests import read_sealed
from nightloom.core.disk import disk_of
from nightloom.core.errors import InputError
from nightloom.core.files import EVENTS
from nightloom.core.privacy_key import check_fingerprint
from nightloom.core.pseudonyms import SAID as PSEUDONYMS
from nightloom.core.pseudonyms import Pseudonyms
from nightloom.data.growing import Growing
from nightloom.data.sources import named
from nightloom.data.sources.files import InPieces, filled, read_table
from nightloom.data.sources.raw import RawTable
from nightloom.data.sources.service_store import read_store
from nightloom.data.subsets.event_filter import filter_events
from nightloom.data.tables.canonical import canonical
from nightloom.data.tables.pictures import STORE, take_in
from nightloom.data.tables.snapshot import SAID as SNAPSHOT
from nightloom.data.tables.snapshot import Snapshot, write_snapshot
from nightloom.data.tables.with_store import FORGOTTEN, LaidOver, with_store
from nightloom.data.tables.without_people import People, without_people
from nightloom.runs.forgotten import Forgotten
from nightloom.runs.locks import in_use


def collect(name: str, data: DataConfig, root: Path, progress: Callable[[str], None] = lambda _: None) -> Snapshot:
    """Read the sources, make them canonical, and write the snapshot (or find it written).

    Args:
        name: of the recommender.
        data: where its tables are, and how they are read.
        root: the mlruns folder; snapshots are under `snapshots/<name>/`, downloads under `cache/downloads/`.
        progress: gets what is read, one line at a time.

    Raises:
        InputError: a source or the store is missing, damaged or unreachable, or its columns are not those of the config; the event filter
            leaves none; the disk is full or read-only.
    """
    with disk_of(root / "snapshots" / name):
        return _collect(name, data, root, progress)


def _collect(name: str, data: DataConfig, root: Path, progress: Callable[[str], None]) -> Snapshot:
    in_use(root.resolve())  # a snapshot that is found written must not be trimmed before a stage reads it
    with ExitStack() as scratch:
        return _made(name, data, root, progress, scratch)


def _made(name: str, data: DataConfig, root: Path, progress: Callable[[str], None], scratch: ExitStack) -> Snapshot:
    """Read and write; what is only needed until then is left to `scratch`."""
    licence: str | None = None
    tables: dict[str, RawTable] = {}
    source: dict[str, Any] = {}
    large: Growing | None = None
    day = read_store(data.store, name, root)
    home = root / "snapshots" / name
    listed = Forgotten.load(root, name).with_marks(day.forgotten if day else ())
    pseudonyms = _pseudonyms(home) if data.pseudonyms else None
    laid = LaidOver(day, data) if day is not None else None
    if pseudonyms:
        source[PSEUDONYMS] = pseudonyms.fingerprint
    if data.set is not None:
        fetched = named.fetch(data.set, root / "cache" / "downloads", progress)
        tables, licence = fetched.tables, fetched.licence
        source |= {"set": data.set, "from": fetched.origin, "left_out": dict(fetched.left_out)}
    else:
        places = {"events": data.events, "items": data.items, "users": data.users, "links": data.links}
        for table, place in places.items():
            if place is None:
                continue
            events = table == "events"
            read = _events(place, data, Growing(root, name, data, listed, laid, scratch)) if events else read_table(place, data, table)
            if not isinstance(read, RawTable):
                source[table], large = read.label, read
                continue
            tables[table], source[table] = read, read.place
            progress(f"read {len(read.frame):,} {table} from {read.place}")
    people, found = People(listed, pseudonyms, data), None
    if large is not None:
        found = large.stream(people, progress)
        if found is None:
            people = People(listed, pseudonyms, data)
            tables = {"events": read_table(str(data.events), data, "events"), **tables}
        progress(f"read {found.rows if found else len(tables['events'].frame):,} events from {source['events']}")
    if found:
        made = found.put_into(people.rename(found.tables(tables, data, people)))
    else:
        made = people.rename(canonical(tables, data, people.leave_out))
    if forgotten := people.left_out:
        source["left_out"] = source.get("left_out", {}) | {FORGOTTEN: forgotten}
        progress(f"events: {forgotten:,} rows left out: {FORGOTTEN}")
    for table, rows in made.rejected.items():
        reason, count = next(iter(rows["reason"].value_counts().items()))
        progress(f"{table}: {len(rows):,} rows cannot be read, most often ({count:,}): {reason}")
    if day is not None:
        made, dropped = with_store(made, day, data, laid if found else None)
        made, waiting = without_people(made, listed.unfinished())  # what came after the person was forgotten counts, once that is done
        if waiting:
            dropped[FORGOTTEN] = dropped.get(FORGOTTEN, 0) + waiting
        progress(f"read {len(day.events):,} events and {len(day.items):,} items of the service's store, {day.place}")
        source["store"] = day.place
        source["store_rows"] = {str(writer): number for writer, number in day.through.items()}
        if dropped:
            source["left_out"] = _added(source.get("left_out", {}), dropped)
            progress("; ".join(f"events: {count:,} rows left out: {reason}" for reason, count in dropped.items()))
    for note in made.notes:
        progress(f"note: {note}")
    if made.notes:
        source["notes"] = made.notes
    made, left_out = filter_events(made, data.event_filter)
    if left_out:
        source["left_out"] = source.get("left_out", {}) | left_out
        progress("; ".join(f"events: {rows:,} rows left out: {reason}" for reason, rows in left_out.items()))
    pictures = None
    if (columns := [column for column, kind in made.features.items() if kind == "image"]) and made.items is not None:
        made.items, pictures = take_in(made.items, columns, _folder(data.items), home / STORE)
        lost = int(pictures["reason"].notna().sum())
        progress(f"read {len(pictures) - lost:,} pictures" + (f"; {lost:,} more can not be read" if lost else ""))
    snapshot = write_snapshot(made, home, source, licence, pictures)
    if large and found:
        large.keep(found, snapshot.path / EVENTS)
    return snapshot


def _events(place: str, data: DataConfig, growing: Growing) -> RawTable | Growing:
    """The events as read, or a large table that is read as it is written. What is done to an event must then depend on no other."""
    if "://" in place or data.random_order or data.event_filter != EventFilterConfig():
        return read_table(place, data, "events")
    try:
        one = growing.begin(InPieces.at(place, data, "events"))
    except (InputError, OSError):
        return read_table(place, data, "events")  # which says what is wrong with the whole
    return growing if one is None else filled(one, "events")


def _added(counts: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    return {reason: counts.get(reason, 0) + more.get(reason, 0) for reason in {**counts, **more}}


def _pseudonyms(home: Path) -> Pseudonyms:
    """The pseudonyms of the environment's key, where the last snapshot was not made by another one.

    Raises:
        InputError: there is no key, or another one: the people of before would all be strangers.
    """
    found = Pseudonyms.of_environment("data.pseudonyms")
    last = max(home.glob(f"*/{SNAPSHOT}"), key=lambda path: path.stat().st_mtime, default=None)
    said = read_sealed(last)["source"].get(PSEUDONYMS) if last else None
    if last and said:
        check_fingerprint(found.key, said, f"data.pseudonyms: {last}")
    return found


def _folder(place: str | None) -> Path | None:
    """Where relative paths in the items table start from: its folder; None where it is no file."""
    if place is None or "://" in place:
        return None
    path = Path(place).expanduser()
    return path if path.is_dir() else path.parent
