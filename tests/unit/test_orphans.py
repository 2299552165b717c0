"""Servers that killed commands left; a sleeping process of the same command line stands for each, since what is asked is who ends it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flows.orphans import STARTER, end_orphans

SLEEP = "import sys, time; time.sleep(100)"
LEAVE = f"""
import subprocess, sys
command = [sys.executable, "-c", {SLEEP!r}, "prefect.server.api.server:create_app"]
process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # pipes would be held open
print(process.pid)
"""
HERE = os.readlink("/proc/self/ns/pid") if Path("/proc/self/ns/pid").is_symlink() else ""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.setenv(STARTER, "")
    yield tmp_path
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if SLEEP in process.cmdline() and process.environ().get("PREFECT_HOME", "").startswith(str(tmp_path)):
                process.kill()


def left(starter: str | None, home: Path) -> psutil.Process:
    """A server whose command has ended; the command's own number is -1 here, which is nobody's parent."""
    env = {name: value for name, value in os.environ.items() if name != STARTER} | {"PREFECT_HOME": str(home)}
    said = subprocess.run([sys.executable, "-c", LEAVE], env=env | ({STARTER: starter} if starter else {}), capture_output=True, check=True)
    return psutil.Process(int(said.stdout))


def test_only_what_a_command_of_this_home_and_container_left_is_ended(home: Path) -> None:
    orphan = left(f"-1 {HERE}", home)
    others = [left("-1 pid:[1]", home), left(f"-1 {HERE}", home / "other"), left(None, home)]
    mine = {STARTER: f"{os.getpid()} {HERE}", "PREFECT_HOME": str(home)}
    command = [sys.executable, "-c", SLEEP, "prefect.server.api.server:create_app"]
    with subprocess.Popen(command, env=os.environ | mine) as served:
        end_orphans()
        orphan.wait()
        assert all(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in others)
        assert served.poll() is None
        assert os.environ[STARTER] == f"{os.getpid()} {HERE}"
        served.kill()
