"""Deleting what old nights left: stages, snapshots with their pictures, fetched champions, and vectors that nothing needs any more.

What is kept: all that one of a recommender's last nights used, and the night that `latest` points at. So are the nights of registered
versions with an alias, and studies of `flows/tune.py`. What is younger than the oldest of the last nights is kept too, whoever made it.
So are reports (`mlruns/nights/`), and MLflow's own files but models that no registered version points at. Nothing is deleted while a
process works under the same mlruns folder.
The store behind that folder, where there is one, is trimmed by its own nights: `nightloom.promotion.trim_store`.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd

from nightloom.core.digests import DAMAGED
from nightloom.core.errors import DamagedError
from nightloom.data.tables.kept import kept_home
from nightloom.data.tables.pictures import PICTURES, STORE, UNREADABLE
from nightloom.encoders.vector_cache import unused_shards
from nightloom.packaging.serving_format import FOLDER as SERVING
from nightloom.promotion.registered import CLICKS, Registered, Version
from nightloom.runs.storage import Storage

TRIMMED = ".trimmed-"
"""A folder is renamed so before it is deleted: one that a kill left by halves must not look finished."""

NIGHT = re.compile(r"\d{8}-\d{6}")
"""How a night's name begins: the time at which it started, in UTC."""


@dataclass(frozen=True)
class Old:
    """Something that nothing needs any more.

    Attributes:
        path: folder or file.
        kind: stages, snapshots, pictures, champions, parts, text or images.
        bytes: size of its files.
    """

    path: Path
    kind: str
    bytes: int


@dataclass(frozen=True)
class Orphan:
    """A model of MLflow's that no version points at.

    Attributes:
        model_id: MLflow's.
        location: address of its files.
    """

    model_id: str
    location: str


def aliased(storage: Storage, registry: Registered) -> dict[str, list[Version]]:
    """Registered versions with an alias, of every recommender with nights in the mlruns folder or the store; click heads are among them."""
    names = sorted({home.name for home in (storage.root / "nights").glob("*")} | set(storage.names("nights")))
    return {name: [one for end in ("", CLICKS) for one in registry.versions(name + end) if one.aliases] for name in names}


def old(root: Path, keep: int, versions: Mapping[str, Sequence[Version]]) -> list[Old]:
    """What may be deleted.

    Args:
        root: the mlruns folder.
        keep: nights of each recommender whose files are kept; one with no more than that is left alone.
        versions: what `aliased` gave.
    """
    nights = {home.name: _nights(home) for home in sorted((root / "nights").glob("*")) if home.is_dir()}
    starts = {name: began(found[-keep].name) for name, found in nights.items() if len(found) > keep}
    stays = needed((file for night in sorted(_kept(root, keep, nights, versions)) for file in _files(night)), versions)
    found = [
        Old(path, kind, _size(path))
        for name, start in starts.items()
        for kind, path in _made(root, name)
        if path.relative_to(root).parts not in stays and (TRIMMED in path.name or _written(path) < start)
    ]
    models = {f"nightloom-{name}{end}" for name in starts for end in ("", CLICKS)}
    fetched = {f"{one.model}-v{one.version}-{one.run_id[:8]}" for held in versions.values() for one in held}
    gone = {one.path for one in found}
    for name, start in starts.items():
        found += _pictures(root / "snapshots" / name, gone, start)
    found += [
        Old(path, "champions", _size(path))
        for path in sorted(path for home in ("champions", SERVING) for path in (root / "cache" / home).glob("nightloom-*"))
        if path.name not in fetched and path.name.rpartition("-v")[0] in models
    ]
    found += [
        Old(path, "parts", _size(path))
        for name, start in starts.items()
        for path in sorted(kept_home(root, name).glob("*"))
        if _written(path) < start
    ]
    first = min(starts.values(), default=0.0)
    return found + _texts(root, gone, first) + _images(root, gone, first)


def orphans(root: Path, keep: int, registry: Registered) -> list[Orphan]:
    """Models that were logged before the oldest of a recommender's last nights, and that no registered version points at.

    A kill between logging and registering leaves one, and so does a version that was deleted on MLflow's page.

    Args:
        root: the mlruns folder.
        keep: nights of each recommender whose files are kept; one with no more than that is left alone.
        registry: where they were logged.
    """
    homes = {home.name: _nights(home) for home in sorted((root / "nights").glob("*")) if home.is_dir()}
    return [
        Orphan(model_id, location)
        for name, nights in homes.items()
        if len(nights) > keep
        for model_id, location in registry.orphans(name, began(nights[-keep].name))
    ]


def delete(found: Iterable[Old]) -> None:
    """Delete what `old` found, with the locks beside it."""
    for one in found:
        if one.path.is_dir():
            away = one.path.with_name(one.path.name if TRIMMED in one.path.name else TRIMMED + one.path.name)
            one.path.rename(away)
            shutil.rmtree(away)
            one.path.with_name(one.path.name.removesuffix(".partial") + ".lock").unlink(missing_ok=True)
        else:
            one.path.unlink()


def began(night: str) -> float:
    """When a night began, in seconds since 1970: its name says so."""
    return datetime.strptime(night[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC).timestamp()


def needed(files: Iterable[tuple[str, Mapping[str, Any]]], versions: Mapping[str, Sequence[Version]]) -> set[tuple[str, ...]]:
    """Stages and snapshots that must stay, by their places under the mlruns folder (which may have been moved since).

    Args:
        files: name and content of the manifests and reports of the nights that are kept.
        versions: what `aliased` gave.
    """
    places: set[tuple[str, ...]] = {
        ("snapshots", name, one.tags.get("nightloom.data_hash", "")[:16]) for name, held in versions.items() for one in held
    }
    for file, content in files:
        if file == "report.json":  # a night that was refused has no manifest of what it read
            places.add(("snapshots", content["name"], (content["data_hash"] or "")[:16]))
            continue
        place = Path(content["folder"]).parts
        if content["stage"] == "collect":
            places.add(place[-3:])
            continue
        places.add(place[-4:])
        if "collect" in content["inputs"]:
            places.add(("snapshots", place[-3], content["inputs"]["collect"]))
    return places


def _nights(home: Path) -> list[Path]:
    """Folders of a recommender's nights, oldest first."""
    return sorted(path for path in home.iterdir() if NIGHT.match(path.name) and not path.is_symlink())


def _kept(root: Path, keep: int, nights: Mapping[str, list[Path]], versions: Mapping[str, Sequence[Version]]) -> set[Path]:
    """Folders with manifests of what must stay."""
    kept = set((root / "tuning").glob("*"))
    for name, found in nights.items():
        home = root / "nights" / name
        kept |= set(found[-keep:]) | {(home / "latest").resolve()}
        kept |= {home / one.tags.get("nightloom.night", "none") for one in versions.get(name, ())}
    return kept


def _files(night: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Manifests and report of a night; a transfer keeps those of its source in a folder of their own."""
    for path in [*night.rglob("manifests/*.json"), night / "report.json"]:
        if path.exists():
            try:
                yield path.name, dict(json.loads(path.read_text(encoding="utf-8")))
            except (ValueError, TypeError) as error:
                remedy = f"What that night needs is unknown, so nothing is deleted. Delete {night} if it is not needed."
                raise DamagedError(path, f"it can not be read ({error})", remedy) from error


def _made(root: Path, name: str) -> Iterator[tuple[str, Path]]:
    """Folders of a recommender's stages, those that a kill left by halves included, and of its snapshots, which share their pictures."""
    for path in sorted((root / "stages" / name).glob("*/*")):
        if path.is_dir():
            yield "stages", path
    for path in sorted((root / "snapshots" / name).glob("*")):
        if path.name != STORE:
            yield "snapshots", path


def _written(folder: Path) -> float:
    """When a folder was last written to, in seconds since 1970."""
    return max((path.stat().st_mtime for path in [folder, *folder.rglob("*")] if not path.is_symlink()), default=0.0)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _pictures(home: Path, gone: set[Path], before: float) -> list[Old]:
    """Pictures beside a recommender's snapshots, written before a moment, that no snapshot which stays names."""
    files = [path for path in sorted((home / STORE).glob("*/*")) if path.stat().st_mtime < before]
    lists = [path for path in home.glob(f"*/{PICTURES}") if path.parent not in gone] if files else []
    named = {key for path in lists for key in pd.read_parquet(path, columns=["key"])["key"]}
    return [Old(path, "pictures", path.stat().st_size) for path in files if path.name not in named]


def _texts(root: Path, gone: set[Path], before: float) -> list[Old]:
    """Shards of text vectors, written before a moment, none of whose texts is in a catalogue that stays."""
    home = root / "cache" / "text"
    if not any(home.glob("*/*")):
        return []
    catalogues = [path for folder in ("stages", "bench", "tuning") for path in (root / folder).rglob("texts.json")]
    catalogues = [path for path in catalogues if path.parent not in gone and DAMAGED not in path.parent.name]
    try:
        texts = {text for path in catalogues for text in json.loads(path.read_text(encoding="utf-8")) if text}
    except ValueError:  # the next night makes it again, from these vectors
        return []
    wanted = {sha256(text.encode()).digest() for text in texts}
    return [Old(path, "text", path.stat().st_size) for path in unused_shards(home, wanted, before)]


def _images(root: Path, gone: set[Path], before: float) -> list[Old]:
    """Shards of pictures' vectors, written before a moment, none of whose pictures a snapshot that stays names."""
    home = root / "cache" / "images"
    if not any(home.glob("*/*")):
        return []
    lists = [path for folder in ("snapshots", "stages", "bench", "tuning") for path in (root / folder).rglob(PICTURES) if path.exists()]
    named = {key for path in lists if path.parent not in gone for key in pd.read_parquet(path, columns=["key"])["key"]}
    wanted = {bytes.fromhex(key) for key in named if not key.startswith(UNREADABLE)}
    return [Old(path, "images", path.stat().st_size) for path in unused_shards(home, wanted, before)]
