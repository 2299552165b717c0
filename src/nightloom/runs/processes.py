"""Which process wrote a run, and whether it may still go on."""

from __future__ import annotations

import os
import socket

import psutil


def this_process() -> str:
    """This process, so that no other is taken for it: host, number, and when it began."""
    return f"{socket.gethostname()} {os.getpid()} {psutil.Process().create_time():.0f}"


def alive(process: str | None) -> bool:
    """Whether the process that wrote a run may still go on; that of another machine may, as far as can be told from here."""
    if process is None:
        return False
    host, pid, began = process.split()
    if host != socket.gethostname():
        return True
    try:
        return abs(psutil.Process(int(pid)).create_time() - float(began)) < 2
    except psutil.NoSuchProcess:
        return False
