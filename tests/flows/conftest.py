"""One Prefect server for the flows that tests run: each would else start one of its own, on a new database, for longer than it runs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

START_SECONDS = 120.0


@pytest.fixture(scope="session", autouse=True)
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve while flow tests run, and let the commands that they start know of it."""
    folder: Path = tmp_path_factory.mktemp("prefect")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    settings = os.environ | {"PREFECT_HOME": str(folder), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_SERVER_UI_ENABLED": "false"}
    with (folder / "log.txt").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=settings) as process:
        try:
            address = f"http://127.0.0.1:{port}/api"
            _wait(f"{address}/health", process, folder / "log.txt")
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("PREFECT_API_URL", address)
                yield address
        finally:
            process.terminate()


def _wait(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the server answers."""
    ends = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < ends:
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"no Prefect server: {log.read_text(errors='replace')}")
