"""Snapshots: canonical tables on disk, immutable, in a folder named by the hash of their content.

Events of more than `ROW_GROUP` rows are a folder of parts, `events.parquet/000000.parquet` and so on.

`snapshot.json` has the digest of each table's file and of itself: what is no longer what was written is noticed before it is read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nightloom.core.digests import check_listing, listing, read_sealed, set_aside, write_sealed
from nightloom.core.errors import DamagedError, InputError
from nightloom.core.files import whole_file, whole_folder
from nightloom.data.tables import coded as of_text
from nightloom.data.tables.blocks import PartsWriter, StoredTable, head_of, in_blocks
from nightloom.data.tables.coded import spelt
from nightloom.data.tables.pictures import PICTURES, linked
from nightloom.data.tables.schema import Tables

FORMAT = "nightloom-snapshot-1"
SAID = "snapshot.json"
REMEDY = "Run collect again: it sets the damaged snapshot aside and makes it from the sources."


@dataclass(frozen=True)
class Snapshot:
    """What `snapshot.json` says.

    Attributes:
        path: the folder.
        hash: SHA-256 (hex) of the content; the folder is named by its first 16 digits.
        counts: table -> rows.
        features: item column -> kind (text, category, tags, number, image).
        rejected: table -> rows that could not be read as canonical.
        licence: terms of a named set, for display; None for a user's own tables.
        source: where the content was read the first time.
    """

    path: Path
    hash: str
    counts: Mapping[str, int]
    features: Mapping[str, str] = field(default_factory=dict)
    rejected: Mapping[str, int] = field(default_factory=dict)
    licence: str | None = None
    source: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Snapshot:
        """Read a snapshot's description, and check its files: sizes each time, digests once in the life of a process.

        Raises:
            DamagedError: a file is missing or no longer what was written.
            InputError: the folder is no snapshot.
        """
        if not (path / SAID).exists():
            raise InputError(f"{path} is not a snapshot, it has no {SAID}. Run collect again, or name a folder under mlruns/snapshots.")
        said = read_sealed(path / SAID, REMEDY)
        try:
            check_listing(path, said["files"], REMEDY)
            return cls(path, said["hash"], said["counts"], said["features"], said["rejected"], said["licence"], said["source"])
        except KeyError as error:
            raise DamagedError(path / SAID, f"it does not say {error}", REMEDY) from error


def check_table(place: Path) -> None:
    """Check one table's files by the snapshot that it is a part of; nothing where it is a part of none.

    Raises:
        DamagedError: a file is no longer what was written.
    """
    if (place.parent / SAID).is_file():
        files = read_sealed(place.parent / SAID, REMEDY, may_lack_seal=True).get("files", {})
        check_listing(place.parent, {name: said for name, said in files.items() if Path(name).parts[0] == place.name}, REMEDY)


def content_hash(tables: Tables) -> str:
    """SHA-256 (hex) of the canonical content: the same rows give the same hash, whatever file they came in.

    Row order counts, since events at the same time keep it; column order does not. Rejected rows count by
    number and reason. A table of more than `ROW_GROUP` rows counts by the digests of its blocks of so many rows.
    """
    digest = sha256(FORMAT.encode())
    frames = tables.present() | {f"rejected_{name}": rows[["row", "reason"]] for name, rows in tables.rejected.items()}
    for name, frame in sorted(frames.items()):
        digest.update(f"\ntable {name} {len(frame)}".encode())
        if len(frame) > of_text.ROW_GROUP:
            for one in _block_digests(frame):
                digest.update(f"\nblock {one}".encode())
        else:
            whole = spelt(frame.whole()) if isinstance(frame, StoredTable) else frame
            _update(digest, {str(column): whole[column] for column in whole}, head_of(whole))
    digest.update(json.dumps(dict(tables.features), sort_keys=True).encode())
    return digest.hexdigest()


def block_digest(head: pd.DataFrame) -> Callable[[pa.Table], str]:
    """What gives the SHA-256 (hex) of a block of a table, by the table's columns and their types."""

    def found(block: pa.Table) -> str:
        digest = sha256()
        columns = {name: column if pa.types.is_large_string(column.type) else column.to_pandas() for name, column in _columns_of(block)}
        _update(digest, columns, head)
        return digest.hexdigest()

    return found


def _columns_of(block: pa.Table) -> Iterator[tuple[str, pa.ChunkedArray]]:
    return zip(block.column_names, block.columns, strict=True)


def _block_digests(table: pd.DataFrame | StoredTable) -> list[str]:
    if isinstance(table, StoredTable) and table.digests:
        return table.digests
    head = head_of(table)
    digest = block_digest(head)
    schema = pa.Schema.from_pandas(spelt(head), preserve_index=False)
    return [digest(pa.Table.from_pandas(spelt(block), schema, preserve_index=False)) for block in in_blocks(table)]


def _update(digest: Any, columns: Mapping[str, pd.Series | pa.ChunkedArray], head: pd.DataFrame) -> None:
    """Add columns, in the order of their names."""
    for name in sorted(columns):
        kind, parts = _parts_of(head[name])
        digest.update(f"\ncolumn {name} {kind}\n".encode())
        for part in parts:
            digest.update(part(columns[name]))


def _parts_of(column: pd.Series) -> tuple[str, Sequence[Callable[[Any], NDArray[Any]]]]:
    """The kind of a column, and what counts of it."""
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return "time", [lambda some: some.to_numpy(dtype="datetime64[ms]").astype("<i8")]
    if pd.api.types.is_integer_dtype(column.dtype):
        return "integer", [lambda some: some.to_numpy(dtype="<i8")]
    if pd.api.types.is_numeric_dtype(column.dtype):
        return "number", [_numbers]
    return "text", [_lengths, lambda some: _characters(pc.fill_null(_text(some), ""))]


def _numbers(column: pd.Series) -> NDArray[np.float64]:
    numbers = column.to_numpy(dtype="<f8", na_value=np.nan)
    return np.where(np.isnan(numbers), np.nan, numbers + 0.0)  # one NaN, and no minus zero


def _lengths(column: pd.Series | pa.ChunkedArray) -> NDArray[np.int64]:
    return pc.fill_null(pc.binary_length(_text(column)), -1).to_numpy(zero_copy_only=False).astype("<i8")


def _text(column: pd.Series | pa.ChunkedArray) -> pa.LargeStringArray:
    spelt = isinstance(column, pa.ChunkedArray)
    text = column.cast(pa.large_string()) if spelt else pa.array(column, type=pa.large_string(), from_pandas=True)
    return text.combine_chunks() if isinstance(text, pa.ChunkedArray) else text


def _characters(text: pa.LargeStringArray) -> NDArray[np.uint8]:
    """All characters of an array without nulls, as UTF-8, one value after the other."""
    _, offsets, content = text.buffers()
    if not len(text) or content is None:
        return np.zeros(0, dtype=np.uint8)
    border = np.frombuffer(offsets, dtype=np.int64)[text.offset : text.offset + len(text) + 1]
    return np.frombuffer(content, dtype=np.uint8)[border[0] : border[-1]]


def write_snapshot(
    tables: Tables, home: Path, source: Mapping[str, Any], licence: str | None = None, pictures: pd.DataFrame | None = None
) -> Snapshot:
    """Write tables as a snapshot, or find the snapshot of the same content.

    Args:
        tables: canonical tables; the file, or folder, of events on disk becomes the snapshot's.
        home: the folder of a name's snapshots; made when missing.
        source: where the tables came from (JSON values, no passwords).
        licence: terms of use, kept with the data.
        pictures: where the pictures of image columns lie. It may change while the content, which has the pictures' digests, stays.
    """
    digest = content_hash(tables)
    path = home / digest[:16]
    if (found := _written(path)) is not None:
        _write_places(pictures, path)
        return found
    with whole_folder(path) as partial:
        for name, table in tables.present().items():
            if isinstance(table, StoredTable):
                table.path.rename(partial / f"{name}.parquet")
            elif name == "events" and len(table) > of_text.ROW_GROUP:
                with PartsWriter(partial / f"{name}.parquet", table.iloc[:0], block_digest(table.iloc[:0])) as writer:
                    writer.add(table)
            else:
                table.to_parquet(partial / f"{name}.parquet", index=False)
        for name, rows in tables.rejected.items():
            rows.to_parquet(partial / f"rejected_{name}.parquet", index=False)
        said = {
            "hash": digest,
            "counts": {name: len(table) for name, table in tables.present().items()},
            "features": dict(tables.features),
            "rejected": {name: len(rows) for name, rows in tables.rejected.items()},
            "licence": licence,
            "source": dict(source),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "files": listing(partial, SAID),
        }
        write_sealed(partial / SAID, said)
        _write_places(pictures, partial)  # its places may change while the content stays
    return Snapshot.load(path)


def _written(path: Path) -> Snapshot | None:
    """The snapshot of a folder, if it is there and whole; what is damaged is set aside."""
    if not path.is_dir():
        return None
    try:
        return Snapshot.load(path)
    except InputError as error:
        damage = error if isinstance(error, DamagedError) else DamagedError(path / SAID, "it is missing")
        set_aside(path, damage, "the snapshot is made again from the sources")
        return None


def _write_places(pictures: pd.DataFrame | None, folder: Path) -> None:
    if pictures is not None:
        with whole_file(folder / PICTURES) as temporary:
            pictures.to_parquet(temporary, index=False)


def read_snapshot(path: Path, *, in_blocks: bool = False) -> Tables:
    """Read the tables of a snapshot, whose files are checked first.

    Args:
        path: the snapshot's folder.
        in_blocks: whether events stay on disk (`nightloom.data.tables.blocks`).

    Raises:
        DamagedError: a file is missing or no longer what was written.
        InputError: the folder is no snapshot.
    """
    snapshot = Snapshot.load(path)
    places = {name: path / f"{name}.parquet" for name in snapshot.counts}
    read: Callable[[Path], Any] = StoredTable if in_blocks else pd.read_parquet
    tables = {name: read(place) if name == "events" else pd.read_parquet(place) for name, place in places.items()}
    rejected = {name: pd.read_parquet(path / f"rejected_{name}.parquet") for name in snapshot.rejected}
    return Tables(
        tables["events"],
        tables.get("items"),
        tables.get("users"),
        tables.get("links"),
        rejected=rejected,
        features=dict(snapshot.features),
        pictures=linked(path),
    )
