"""Which process wrote a run, whether it may still go on, who sits before it, and what it has used."""

from __future__ import annotations

import getpass
import os
import resource
import socket
from contextlib import suppress

import psutil


def this_process() -> str:
    """This process, so that no other is taken for it: host, number, and when it began."""
    return f"{socket.gethostname()} {os.getpid()} {psutil.Process().create_time():.0f}"


def user() -> str:
    """The user of this computer that this process belongs to; empty where the system knows no name."""
    with suppress(OSError, KeyError, ImportError):
        return getpass.getuser()
    return ""


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


def cpu_seconds() -> float:
    """CPU seconds of this process and of its children that have ended, on all cores together."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)
