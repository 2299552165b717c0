"""Has co-occurrence and `linear` fitted anew while the service runs, as often as a twentieth of one core allows.

It is part of the process that starts the workers, and needs no numpy.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from nightloom.serving.server.workers import THREADS
from nightloom.serving.settings import CHAMPION, LEAST_TOLD, Champion, rebuilt_file, rebuilt_files

LOOK_SECONDS = 5.0
LEAST_PAUSE, PAUSES = 60.0, 20
"""Seconds between two, and how many times as long as the last one took."""
log = logging.getLogger("nightloom.serving")


class Rebuilder:
    """Looks whether enough was told.

    Args:
        folder: where `champion.json` is, and the edges are written.
        store: the store's file.
    """

    def __init__(self, folder: Path, store: Path) -> None:
        self.folder, self.store = folder, store
        self._version, self._through, self._failed, self._nothing = "", 0, 0, False

    def watch(self) -> None:
        """Look again and again."""
        while True:
            began = time.monotonic()
            try:
                self.look()
            except (OSError, ValueError, sqlite3.Error) as error:
                log.error("edges are not built anew: %s", error)
            took = time.monotonic() - began
            time.sleep(LOOK_SECONDS if took < 1 else max(LEAST_PAUSE, PAUSES * took))

    def look(self) -> bool:
        """Have the edges built, if they are due; whether they were.

        Raises:
            OSError, ValueError, sqlite3.Error: `champion.json` or the store can not be read.
        """
        if not (self.folder / CHAMPION).exists() or not self.store.exists():
            return False
        champion = Champion.read(self.folder / CHAMPION)
        if champion.version != self._version:
            self._version, self._through, self._failed, self._nothing = champion.version, 0, 0, False
        if self._nothing:
            return False
        with closing(sqlite3.connect(f"file:{quote(str(self.store))}?mode=ro", uri=True)) as connection:
            last = connection.execute("SELECT sequence FROM state").fetchone()[0]
            forgotten = connection.execute("SELECT max(sequence) FROM forgotten").fetchone()[0] or 0
        if last - max(self._through, self._failed) < LEAST_TOLD and forgotten <= self._through:
            return False
        out = rebuilt_file(self.folder, champion.version)
        for left in rebuilt_files(self.folder):
            if left != out or forgotten > self._through:  # who was forgotten is not in what workers that start now take
                left.unlink(missing_ok=True)
        words = [str(self.folder), str(self.store), str(out), str(self._through), str(os.getpid())]
        command = [sys.executable, "-m", "nightloom.serving.rebuild", *words]
        before = out.stat().st_mtime_ns if out.exists() else 0
        alone = dict.fromkeys(THREADS, "1") | os.environ  # the first may start before the workers do
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=alone)
        if done.returncode:
            self._failed = last  # tried again when more was told, and as long as somebody who was forgotten is in them
            log.error("edges are not built anew: %s", (done.stderr.strip().splitlines() or ["no message"])[-1])
            return False
        self._through = int(done.stdout)
        self._nothing = self._through < 0
        return out.exists() and out.stat().st_mtime_ns != before
