"""Prefect servers that outlived the command that started them."""

from __future__ import annotations

import contextlib
import os

import psutil

STARTER = "NIGHTLOOM_COMMAND"
"""Names the command's process to the server that Prefect starts for it."""
END_SECONDS = 5.0
"""How long a temporary server may take to end by itself, and then to be killed."""


def end_orphans() -> None:
    """End the temporary servers of earlier commands with this `PREFECT_HOME` that were killed, and mark this command's own.

    Prefect ends its server when a command exits; a command that is killed can not see to that, and the server would run on for good.
    A server whose parent is no longer the process that it is marked with has lost it. Those of another container are left alone, since
    their processes have other numbers there than here.
    """
    home, space = os.environ["PREFECT_HOME"], _namespace()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # another user's, or gone by now
            if not _serves(process):
                continue
            given = process.environ()
            starter, _, its = given.get(STARTER, "").partition(" ")
            if starter and given.get("PREFECT_HOME") == home and its == space and starter != str(process.ppid()):
                process.terminate()
    os.environ[STARTER] = f"{os.getpid()} {space}"


def end_own() -> None:
    """End the temporary server of this command, for an end at which Prefect can not see to it, and wait until it is gone."""
    ended = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if _serves(process):
                process.terminate()
                ended.append(process)
    for process in psutil.wait_procs(ended, timeout=END_SECONDS)[1]:  # it may wait for a disk, or for requests
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(ended, timeout=END_SECONDS)


def _serves(process: psutil.Process) -> bool:
    """Whether it is a temporary server of Prefect's."""
    return "prefect.server.api.server:create_app" in process.cmdline()


def _namespace() -> str:
    """What process numbers are counted in, on Linux; elsewhere there is one."""
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""
