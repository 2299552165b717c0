"""Deleting what old nights left in the store of NIGHTLOOM_STORE, by the nights that were published there.

The same is kept as in an mlruns folder (`nightloom.promotion.trim`). A store has no locks, so trim it from the machine that runs the
nights: there `nightloom trim` refuses while one is at work. A night of another machine that needs what was deleted makes it again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from nightloom.promotion.registered import Version
from nightloom.promotion.trim import NIGHT, began, needed
from nightloom.runs.storage import Storage


@dataclass(frozen=True)
class OldPlace:
    """A folder of the store that nothing needs any more.

    Attributes:
        place: relative to the store.
        bytes: size of its files; 0 where a kill left it by halves.
    """

    place: str
    bytes: int


def old_places(storage: Storage, keep: int, versions: Mapping[str, Sequence[Version]]) -> list[OldPlace]:
    """Stages and snapshots of the store that may be deleted.

    Args:
        storage: with a store.
        keep: nights of each recommender whose files are kept; one with no more than that is left alone.
        versions: what `trim.aliased` gave.
    """
    found = []
    for name in storage.names("nights"):
        nights = [night for night in storage.names(f"nights/{name}") if NIGHT.match(night)]
        if len(nights) <= keep:
            continue
        held = versions.get(name, ())
        last = storage.read_json(f"nights/{name}/latest.json") or {"night": nights[-1]}
        kept = {*nights[-keep:], last["night"], *(one.tags.get("nightloom.night", "none") for one in held)} & set(nights)
        stays = {
            "/".join(place)
            for place in needed((f for night in sorted(kept) for f in _files(storage, f"nights/{name}/{night}")), {name: held})
        }
        start = began(nights[-keep])
        found += [
            OldPlace(place, sum((storage.index(place) or {}).values()))
            for place in _made(storage, name)
            if place not in stays and storage.written(place) < start
        ]
    return found


def _files(storage: Storage, night: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Manifests and report of a published night."""
    for file in storage.index(night) or {}:
        if file == "report.json" or ("manifests/" in file and file.endswith(".json")):
            yield file, storage.read_json(f"{night}/{file}")


def _made(storage: Storage, name: str) -> Iterator[str]:
    for stage in storage.names(f"stages/{name}"):
        yield from (f"stages/{name}/{stage}/{key}" for key in storage.names(f"stages/{name}/{stage}"))
    yield from (f"snapshots/{name}/{key}" for key in storage.names(f"snapshots/{name}"))
