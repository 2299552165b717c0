"""Which process wrote a run, whether it may still go on, who sits before it, what it has used, and that it ends with its parent."""

from __future__ import annotations

import ctypes
import getpass
import os
import resource
import signal
import socket
import sys
from contextlib import suppress

import psutil

PR_SET_PDEATHSIG = 1


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


def tie_to_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent ends, however it ends (Linux; elsewhere nothing)."""
    if not parent or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the call above
        os.kill(os.getpid(), signal.SIGKILL)
