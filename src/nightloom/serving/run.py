"""Starting the service: this process finds the champion and starts the workers, which import neither MLflow nor torch."""

from __future__ import annotations

import errno
import ipaddress
import json
import logging
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nightloom import __version__
from nightloom.core.errors import InputError, NightloomError
from nightloom.core.files import write_json
from nightloom.core.shell import typed
from nightloom.runs.service_store import central_address, store_file
from nightloom.serving.api.keys import KEYS, Keys
from nightloom.serving.app import Settings, create_app

if TYPE_CHECKING:
    from nightloom.promotion.registered import Version
    from nightloom.promotion.registry import Registry

LOOK_SECONDS = 2.0
"""How often the registry is asked which version is the champion."""
log = logging.getLogger("nightloom.serving")


@dataclass(frozen=True)
class Place:
    """Where the service listens, and with how many workers."""

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 2
    access_log: bool = True

    def check(self) -> None:
        """Refuse a place where the service must not, or can not, listen.

        Raises:
            InputError: the port is taken, or a host beyond this machine is named and no key is set.
        """
        if not Keys.of_environment() and not _loopback(self.host):
            raise InputError(
                f"--host {self.host}: others than this machine could ask, and no key is set. Set {KEYS}, for example to "
                "reader:KEY,writer:KEY,admin:KEY, or listen at 127.0.0.1."
            )
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0]
        except OSError as error:
            raise InputError(f"--host {self.host}: no address of this machine ({error}).") from error
        with socket.socket(found[0], socket.SOCK_STREAM) as probe:  # workers share their port, and would share it with others, too
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(found[4])
            except OSError as error:
                words = "it is taken" if error.errno == errno.EADDRINUSE else str(error)
                raise InputError(f"--port {self.port}: {words}. Name another one, or end what listens there.") from error


def serve(name: str, root: Path, registry: Registry, place: Place) -> None:
    """Serve the champion of a recommender until the process is told to end.

    Args:
        name: of the recommender.
        root: the mlruns folder.
        registry: where its champion is.
        place: where to listen.

    Raises:
        InputError: there is no champion.
        NightloomError: the champion's artefact does not answer as its bundle.
    """
    from granian import Granian
    from granian.constants import Interfaces

    root = root.resolve()
    folder = root / "serving" / name
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("metrics-*.json"):
        old.unlink(missing_ok=True)
    finder = Finder(name, root, registry, folder)
    finder.find()
    settings = Settings(folder, store_file(root, name), central_address(), place.access_log)
    configure_log(place.access_log)
    threading.Thread(target=finder.watch, name="champion", daemon=True).start()
    multiprocessing.set_start_method("spawn", force=True)  # a fork would hold all that this process has imported
    server = Granian(
        "nightloom.serving",
        address=place.host,
        port=place.port,
        interface=Interfaces.ASGI,
        workers=place.workers,
        respawn_failed_workers=True,
        workers_kill_timeout=30,
        websockets=False,
        log_access=False,
    )
    server.serve(target_loader=partial(worker, settings), wrap_loader=False)


def worker(settings: Settings) -> Any:
    """A worker's app; granian calls it in the new process."""
    configure_log(settings.access_log)
    return create_app(settings)


class Finder:
    """Finds the champion, and says so where workers look.

    Args:
        name: of the recommender.
        root: the mlruns folder.
        registry: where versions are.
        folder: where `champion.json` is written.
    """

    def __init__(self, name: str, root: Path, registry: Registry, folder: Path) -> None:
        self.name, self.root, self.registry, self.folder = name, root, registry, folder
        self.version: str | None = None
        self.refused: str | None = None

    def find(self) -> None:
        """Look once, and have workers change over where the champion is another one.

        Raises:
            InputError: there is no champion.
            NightloomError: the registry can not be reached, or the version does not pass its probes; the old one serves on.
        """
        champion = self.registry.champion(self.name)
        if champion is None:
            raise InputError(
                f"nightloom-{self.name} has no champion in {self.registry.tracking.uri}. Run a night first: "
                f"{typed('nightloom', 'night', '--help')}"
            )
        if champion.version in (self.version, self.refused):
            return
        self.refused = champion.version  # until it has passed
        artefact = self.registry.fetch_serving(champion, self.root / "cache")
        self._warm(artefact)
        snapshot = self._snapshot(champion)
        said = {
            "name": self.name,
            "version": champion.version,
            "folder": str(artefact),
            "snapshot": None if snapshot is None else str(snapshot),
            "exclude_seen": self.registry.excludes_seen(champion),
        }
        write_json(self.folder / "champion.json", said)
        self.version, self.refused = champion.version, None

    def watch(self) -> None:
        """Look again and again."""
        while True:
            time.sleep(LOOK_SECONDS)
            try:
                self.find()
            except NightloomError as error:
                log.error("champion: %s", error)
            except Exception:
                log.exception("champion: the registry can not be read")

    def _snapshot(self, champion: Version) -> Path | None:
        """The snapshot that a version was trained on, if it is here."""
        found = self.root / "snapshots" / self.name / champion.tags.get("nightloom.data_hash", "")[:16]
        if (found / "events.parquet").is_file() and (found / "snapshot.json").is_file():
            return found
        log.warning("the snapshot of version %s is not at %s: users have only what they do from now on", champion.version, found)
        return None

    def _warm(self, artefact: Path) -> None:
        """Have an artefact checked, and its kernels compiled, in a process of its own; once for an installation."""
        mark = artefact.with_name(f".{artefact.name}.checked-{__version__}")
        if mark.exists() and self.version is None:
            return
        done = subprocess.run(
            [sys.executable, "-m", "nightloom.serving.warm", str(artefact)], capture_output=True, text=True, check=False, env=os.environ
        )
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or ["no message"]
            raise NightloomError(f"version of {artefact.name} is refused: {last[0]}")
        mark.touch()


class Lines(logging.Formatter):
    """Log lines as JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        message = record.getMessage()
        said: dict[str, Any] = {"time": round(record.created, 3), "level": record.levelname.lower()}
        said |= json.loads(message) if record.name == "nightloom.access" else {"message": message}
        if record.exc_info:
            said["trace"] = self.formatException(record.exc_info)
        return json.dumps(said, ensure_ascii=False)


def configure_log(access: bool) -> None:
    """Log to standard error, a JSON object a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    logger = logging.getLogger("nightloom")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
    logging.getLogger("nightloom.access").setLevel(logging.INFO if access else logging.WARNING)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
