"""Sockets of a port that several processes share: the system deals out connections among those that listen."""

from __future__ import annotations

import resource
import socket

from nightloom.serving.settings import CONNECTIONS

BACKLOG = 4_096
"""Connections that the system keeps until a worker takes them."""
OTHER_FILES = 256
"""Open files of a worker besides its connections."""


def bound(host: str, port: int) -> socket.socket:
    """A socket at an address, which does not listen yet.

    Each worker has one of its own. On a shared one, whichever worker looks first takes all the connections that wait.

    Raises:
        OSError: there is no such address, or others listen there.
    """
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    found = socket.socket(family, kind)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        found.bind(address)
    except OSError:
        found.close()
        raise
    return found


def connections() -> int:
    """How many connections a worker may hold: workers inherit the limit of open files, which is raised as far as the system lets us."""
    least, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + OTHER_FILES
    allowed = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    if least not in (resource.RLIM_INFINITY, allowed) and least < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))
    return max(allowed - OTHER_FILES, 1)
