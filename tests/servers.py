"""Waiting for a server that a test has started."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.request
from pathlib import Path

START_SECONDS = 400.0


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def until_it_answers(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the server answers; a RuntimeError with its log where it ends or takes too long."""
    ends = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < ends:
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"no server at {address}: {log.read_text(errors='replace')}")
