"""Starting the service: this process finds the champion and starts the workers, which import neither MLflow nor torch."""

from __future__ import annotations

import ipaddress
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nightloom.core.blocklist import blocklist_of
from nightloom.core.errors import InputError, NightloomError
from nightloom.core.names import check_name
from nightloom.core.shell import typed
from nightloom.runs.service_store import central_address, store_file
from nightloom.serving.api.keys import KEYS, Keys
from nightloom.serving.log import configure_log
from nightloom.serving.prepare import prepare, serving_folder
from nightloom.serving.rebuilder import Rebuilder
from nightloom.serving.server.sockets import claim
from nightloom.serving.server.workers import listen
from nightloom.serving.settings import CHAMPION, LARGE, PREPARED, Champion, Limits, Settings, cache_bytes

if TYPE_CHECKING:
    from nightloom.promotion.registry import Registry

LOOK_SECONDS = 2.0
"""How often the registry is asked which version is the champion."""
log = logging.getLogger("nightloom.serving")


@dataclass(frozen=True)
class Place:
    """Where the service listens, with how many workers, and by which business rules."""

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 2
    access_log: bool = True
    rules: Path | None = None
    large: int = LARGE

    def check(self) -> None:
        """Refuse a place where the service must not listen, and a broken file of business rules.

        Raises:
            InputError: a host beyond this machine is named and no key is set, or a field of the file is wrong.
        """
        if self.rules is not None:
            from nightloom.serving.business_rules import read_rules  # here, since the parent process needs no numpy without

            read_rules(self.rules)
        if not Keys.of_environment() and not _loopback(self.host):
            raise InputError(
                f"--host {self.host}: others than this machine could ask, and no key is set. Set {KEYS}, for example to "
                "reader:KEY,writer:KEY,admin:KEY, or listen at 127.0.0.1."
            )


def serve(name: str, root: Path, registry: Callable[[], Registry], place: Place) -> None:
    """Serve the champion of a recommender until the process is told to end.

    Where promotion has prepared a version, workers open it while the registry is asked whether it is the champion.

    Args:
        name: of the recommender.
        root: the mlruns folder.
        registry: opens the registry, where its champion is.
        place: where to listen.

    Raises:
        InputError: there is no champion, or it is no name, or the port is taken.
        NightloomError: the champion's artefact does not answer as its bundle.
    """
    check_name(name)
    with claim(place.host, place.port):  # before anything is changed that another service reads
        _serve(name, root.resolve(), registry, place)


def _serve(name: str, root: Path, registry: Callable[[], Registry], place: Place) -> None:
    folder = serving_folder(root, name)
    for old in [*folder.glob("metrics-*.json"), folder / CHAMPION]:
        old.unlink(missing_ok=True)
    finder = Finder(name, root, registry, folder)
    if not (folder / PREPARED).exists():
        finder.find()
    settings = Settings(
        folder,
        store_file(root, name),
        central_address(),
        place.access_log,
        rules=place.rules,
        blocklist=blocklist_of(root, name),
        limits=Limits(place.large, cache_bytes(place.workers)),
    )
    configure_log(place.access_log)
    threading.Thread(target=finder.watch, name="champion", daemon=True).start()
    threading.Thread(target=Rebuilder(folder, settings.store).watch, name="edges", daemon=True).start()
    listen(settings, place.host, place.port, place.workers)
    if finder.fault is not None:
        raise finder.fault


class Finder:
    """Finds the champion, and says so where workers look.

    Args:
        name: of the recommender.
        root: the mlruns folder.
        registry: opens the registry.
        folder: where `champion.json` is written.

    Attributes:
        fault: why the service has to end.
    """

    def __init__(self, name: str, root: Path, registry: Callable[[], Registry], folder: Path) -> None:
        self.name, self.root, self.folder = name, root, folder
        self._open = registry
        self._registry: Registry | None = None
        self.fault: InputError | None = None
        self.version: str | None = None
        self.refused: str | None = None

    def find(self) -> None:
        """Look once, and have workers change over where the champion is another one.

        Raises:
            InputError: there is no champion.
            NightloomError: the registry can not be reached, or the version does not pass its probes; the old one serves on.
        """
        registry = self._registry = self._registry or self._open()
        champion = registry.champion(self.name)
        if champion is None:
            raise InputError(
                f"nightloom-{self.name} has no champion in {registry.tracking.uri}. Run a night first: "
                f"{typed('nightloom', 'night', '--help')}"
            )
        if champion.version in (self.version, self.refused):
            return
        self.refused = champion.version  # until it has passed
        ready = prepare(registry, champion, self.root, again=self.version is not None)
        if ready is None:
            raise InputError("the service needs the Python package numba: pip install 'nightloom[serve]'")
        ready.write(self.folder / CHAMPION)
        self.version, self.refused = champion.version, None

    def watch(self) -> None:
        """Look again and again. Where the registry does not answer at first, what was prepared last serves until it does."""
        while True:
            try:
                self.find()
            except NightloomError as error:
                log.error("champion: %s", error)
                self._make_do(error)
            except Exception as error:
                log.exception("champion: the registry can not be read")
                self._make_do(error)
            time.sleep(LOOK_SECONDS)

    def _make_do(self, error: Exception) -> None:
        """At the start, serve what was prepared last; where the registry says that there is nothing to serve, the service ends."""
        if (self.folder / CHAMPION).exists():
            return
        if isinstance(error, InputError):
            self.fault = error
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            Champion.read(self.folder / PREPARED).write(self.folder / CHAMPION)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
