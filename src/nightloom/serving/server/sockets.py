"""Sockets of a port that several processes share: the system deals out connections among those that listen."""

from __future__ import annotations

import errno
import resource
import socket
import struct
import sys

from nightloom.core.errors import InputError
from nightloom.serving.settings import CONNECTIONS

BACKLOG = 4_096
"""Connections that the system keeps until a worker takes them."""
LAST_DATA = slice(52, 56)
"""Bytes of Linux' `struct tcp_info` with `tcpi_last_data_recv`, in milliseconds; it counts in steps of the system's clock, often 4."""
OTHER_FILES = 256
"""Open files of a worker besides its connections."""


def claim(host: str, port: int) -> socket.socket:
    """A socket that keeps a port for the workers of one service, whether they listen yet, or not just now. It does not listen itself.

    Raises:
        InputError: there is no such address, or somebody has the port.
    """
    try:
        bound(host, port, share=False).close()  # in vain where others listen, or have claimed it
        try:
            return bound(host, port, again=False)
        except OSError:  # of another program that has ended, connections are left for a minute
            return bound(host, port)
    except socket.gaierror as error:
        raise InputError(f"--host {host}: no address of this machine ({error}).") from error
    except OSError as error:
        words = "it is taken" if error.errno == errno.EADDRINUSE else str(error)
        raise InputError(f"--port {port}: {words}. Name another one, or end what listens there.") from error


def bound(host: str, port: int, *, share: bool = True, again: bool = True) -> socket.socket:
    """A socket at an address, which does not listen yet.

    Each worker has one of its own. On a shared one, whichever worker looks first takes all the connections that wait.

    Args:
        host: address.
        port: there.
        share: whether others of this user may have the port, too, if they share it.
        again: whether others may have it, or have had it, that do not listen, if they allow it.

    Raises:
        OSError: there is no such address, or others have it.
    """
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    found = socket.socket(family, kind)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, again)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, share)
    try:
        found.bind(address)
    except OSError:
        found.close()
        raise
    return found


def age(client: socket.socket) -> float:
    """Seconds since the last bytes came from a client, whether they were read at once or not; 0 where the system does not say."""
    if sys.platform != "linux":
        return 0.0
    (milliseconds,) = struct.unpack_from("I", client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, LAST_DATA.stop), LAST_DATA.start)
    return milliseconds / 1000


def connections() -> int:
    """How many connections a worker may hold: workers inherit the limit of open files, which is raised as far as the system lets us."""
    least, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + OTHER_FILES
    allowed = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    if least not in (resource.RLIM_INFINITY, allowed) and least < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))
    return max(allowed - OTHER_FILES, 1)
