"""One Prefect server for the flows that tests run: each would else start one of its own, on a new database, for longer than it runs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import until_it_answers


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server's address."""
    folder: Path = tmp_path_factory.mktemp("prefect")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-services"]
    settings = os.environ | {"PREFECT_HOME": str(folder), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_SERVER_UI_ENABLED": "false"}
    with (folder / "log.txt").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=settings) as process:
        try:
            address = f"http://127.0.0.1:{port}/api"
            until_it_answers(f"{address}/health", process, folder / "log.txt")
            yield address
        finally:
            process.terminate()


@pytest.fixture(scope="module", autouse=True)
def _known_to_flows(prefect_server: str) -> Iterator[None]:
    """Commands that these tests run use it, and those of other tests do not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_API_URL", prefect_server)
        yield
