"""What a worker is told, and what is to serve: small files between the process that looks into the registry and the workers.

`champion.json` says what is to serve, since the service was started. `prepared.json` says what serves next time: promotion writes it, so
that workers open it while the registry is still being asked.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from nightloom.core.files import write_json

CHAMPION, PREPARED = "champion.json", "prepared.json"
LARGE = 200_000
"""Items of a catalogue above which only candidates are scored; below, a full scan costs as little."""
CACHE_BYTES = 256 << 20
"""Memory of a worker for the keys and values of stored users, at least."""
CACHE_SHARE = 8
"""All workers together take so small a part of the machine's memory for them, where that is more."""
CGROUP = Path("/sys/fs/cgroup/memory.max")
"""Where a container says how much memory it may take."""
MOST_AT_ONCE = 64
"""Requests that one worker takes at a time; more are told to come back."""
LEAST_TOLD = 1_000
"""Rows of the store after which edges are built anew: fewer change little."""
CONNECTIONS = 16_384
"""Connections that one worker holds, if the system lets it have so many open files."""


@dataclass(frozen=True)
class Champion:
    """What a service serves.

    Attributes:
        name: of the recommender.
        version: of the registered model.
        folder: the serving artefact.
        snapshot: folder of the snapshot that it was trained on; None where it is not here, and users have only what they did by day.
        exclude_seen: whether items of the history are left out unless a request says otherwise.
        text_encoder: folder of the text encoder; None: the service reads no texts.
    """

    name: str
    version: str
    folder: Path
    snapshot: Path | None = None
    exclude_seen: bool = True
    text_encoder: Path | None = None

    def write(self, path: Path) -> None:
        """Say it in a file."""
        snapshot, encoder = (None if place is None else str(place) for place in (self.snapshot, self.text_encoder))
        said = {"name": self.name, "version": self.version, "folder": str(self.folder), "snapshot": snapshot, "text_encoder": encoder}
        write_json(path, said | {"exclude_seen": self.exclude_seen})

    @classmethod
    def read(cls, path: Path) -> Champion:
        """Read what a file says.

        Raises:
            OSError, ValueError: there is none, or it says nothing.
        """
        said = json.loads(path.read_text(encoding="utf-8"))
        try:
            snapshot, encoder = (None if said[place] is None else Path(said[place]) for place in ("snapshot", "text_encoder"))
            return cls(said["name"], said["version"], Path(said["folder"]), snapshot, said["exclude_seen"], encoder)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path}: {error!r}") from error


def cache_bytes(workers: int, cgroup: Path = CGROUP) -> int:
    """Memory of one of so many workers for stored users: who is kept is answered by one token, and who is not by the whole history."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # no container, or one without a limit
        memory = min(memory, int(cgroup.read_text(encoding="ascii")))
    return max(CACHE_BYTES, memory // CACHE_SHARE // workers)


def rebuilt_file(folder: Path, version: str) -> Path:
    """Where the edges are that were built anew for a version, in the folder of `champion.json`."""
    return folder / f"edges-{version}.npz"


def rebuilt_files(folder: Path) -> list[Path]:
    """Such files of all versions, and what was being written of them when a process was killed."""
    name = rebuilt_file(folder, "*").name
    return [*folder.glob(name), *folder.glob(f".{name}.*")]


@dataclass(frozen=True)
class Limits:
    """What a worker's engine may take.

    Attributes:
        large: of a catalogue of more items only candidates are scored (`nightloom.serving.model.retrieval`).
        cache_bytes: of memory for the keys and values of stored users.
    """

    large: int = LARGE
    cache_bytes: int = CACHE_BYTES


LIMITS = Limits()


@dataclass(frozen=True)
class Settings:
    """What a worker is told.

    Attributes:
        folder: where the parent process says what is to serve, and workers leave their counters.
        store: the store's file.
        url: PostgreSQL's address, where machines share a store.
        access_log: whether each request is a line of the log.
        at_once: requests that one worker takes at a time.
        connections: that it holds.
        rules: YAML file of business rules; None without any.
        blocklist: file that says what is never shown (`nightloom.core.blocklist`).
        limits: of the engine.
    """

    folder: Path
    store: Path
    url: str | None = None
    access_log: bool = True
    at_once: int = MOST_AT_ONCE
    connections: int = CONNECTIONS
    rules: Path | None = None
    blocklist: Path | None = None
    limits: Limits = LIMITS
