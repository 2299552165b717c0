"""Prefect servers that outlived the command that started them."""

from __future__ import annotations

import contextlib
import os

import psutil

STARTER = "NIGHTLOOM_COMMAND"
"""Names the command's process to the server that Prefect starts for it."""


def end_orphans() -> None:
    """End the temporary servers of earlier commands with this `PREFECT_HOME` that were killed, and mark this command's own.

    Prefect ends its server when a command exits; a command that is killed can not see to that, and the server would run on for good.
    A server whose parent is no longer the process that it is marked with has lost it.
    """
    home = os.environ["PREFECT_HOME"]
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # another user's, or gone by now
            if "prefect.server.api.server:create_app" not in process.cmdline():
                continue
            given = process.environ()
            if given.get("PREFECT_HOME") == home and given.get(STARTER, str(process.ppid())) != str(process.ppid()):
                process.terminate()
    os.environ[STARTER] = str(os.getpid())
