"""Requests to a service from a process of its own: so many clients that wait for their answers, or so many a second whatever it answers.

    python -m benchmarks.load_generator PORT SECONDS (--clients N | --rate N) --bodies FILE [--path /recommend]

Plain sockets in one loop over epoll: a request costs the generator some 12 us, a fifth of what asyncio's transports cost. What it takes of
the processor it takes from a service on the same machine. One line of JSON tells what became of the requests.
"""

from __future__ import annotations

import argparse
import errno
import json
import random
import select
import socket
import sys
import time
from collections import Counter
from pathlib import Path

MOST_OPEN = 8_000
"""Connections at a time."""
LONGEST_WAIT = 90.0
"""Seconds after the last request that answers are waited for."""
LOOK = 0.05
"""Seconds that the loop sleeps at most."""


class Connection:
    """One connection, with one request at a time under way."""

    __slots__ = ("began", "connected", "received", "request", "socket")

    def __init__(self, one: socket.socket) -> None:
        self.socket, self.connected = one, False
        self.request, self.received, self.began = b"", b"", 0.0


class Generator:
    """Sends requests and notes what became of them.

    Args:
        port: of the service.
        path: that is asked.
        bodies: JSON of the requests, drawn at random.
    """

    def __init__(self, port: int, path: str, bodies: list[bytes]) -> None:
        self.port = port
        self.outcomes: Counter[str] = Counter()
        self.waits: list[float] = []
        self.begun: list[float] = []
        self.late: list[float] = []
        """Milliseconds by which requests were sent too late. They count as waits, too: who asks at a moment waits from that moment on."""
        head = "POST {} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n"
        self._requests = [head.format(path, len(body)).encode() + body for body in bodies]
        self._epoll = select.epoll()
        self._open: dict[int, Connection] = {}
        self._idle: list[Connection] = []
        self._under_way = 0

    def closed(self, clients: int, seconds: float) -> None:
        """Clients that ask one after the other."""
        ends = time.perf_counter() + seconds
        for _ in range(clients):
            self._send(time.perf_counter())
        while self._under_way and time.perf_counter() < ends + LONGEST_WAIT:
            for _ in range(self._look(LOOK)):
                if (now := time.perf_counter()) < ends:
                    self._send(now)
        self.outcomes["never answered"] += self._under_way

    def open(self, rate: float, seconds: float) -> None:
        """Requests at random moments, so many a second, whatever became of those before."""
        began, due = time.perf_counter(), random.expovariate(rate)
        while due < seconds:
            now = time.perf_counter() - began
            if due <= now:
                self.late.append(1000 * (now - due))
                self._send(began + due)
                due += random.expovariate(rate)
            else:
                self._look(min(due - now, LOOK))
        while self._under_way and time.perf_counter() - began < seconds + LONGEST_WAIT:
            self._look(LOOK)
        self.outcomes["never answered"] += self._under_way

    def _send(self, due: float) -> None:
        """Send a request that was due at a moment, over any connection that is idle, as many people have one each."""
        if self._idle:
            place = int(len(self._idle) * random.random())
            self._idle[place], self._idle[-1] = self._idle[-1], self._idle[place]
        connection = self._idle.pop() if self._idle else self._connect()
        if connection is None:
            self.outcomes["not sent"] += 1
            return
        self._under_way += 1
        connection.began, connection.request = due, random.choice(self._requests)
        if connection.connected:
            self._write(connection)

    def _connect(self) -> Connection | None:
        if len(self._open) >= MOST_OPEN:
            return None
        one = socket.socket()
        one.setblocking(False)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if one.connect_ex(("127.0.0.1", self.port)) not in (0, errno.EINPROGRESS):
            one.close()
            return None
        connection = self._open[one.fileno()] = Connection(one)
        self._epoll.register(one.fileno(), select.EPOLLOUT)
        return connection

    def _write(self, connection: Connection) -> None:
        try:
            connection.socket.sendall(connection.request)  # a few hundred bytes, for which there is always room
        except OSError:
            self._over(connection, "lost")

    def _look(self, seconds: float) -> int:
        """Read what has come; how many requests are over."""
        before = self._under_way
        for number, event in self._epoll.poll(seconds):
            connection = self._open[number]
            if not connection.connected:
                if event & (select.EPOLLERR | select.EPOLLHUP):
                    self._over(connection, "refused")
                    continue
                connection.connected = True
                self._epoll.modify(number, select.EPOLLIN)
                self._write(connection)
            else:
                self._read(connection)
        return before - self._under_way

    def _read(self, connection: Connection) -> None:
        try:
            data = connection.socket.recv(1 << 18)
        except OSError:
            data = b""
        if not data:
            self._over(connection, "lost")
            return
        connection.received += data
        head, end, body = connection.received.partition(b"\r\n\r\n")
        if not end:
            return
        head = head.lower()
        said = head.partition(b"content-length:")[2]
        if len(body) < int(said.partition(b"\r\n")[0] or 0):
            return
        connection.received = b""
        status, told = head[9:12].decode(), b"\r\nretry-after:" in head
        if status == "200":
            self.begun.append(connection.began)
            self.waits.append(1000 * (time.perf_counter() - connection.began))
        self.outcomes[status + (" with retry-after" if told else "")] += 1
        self._under_way -= 1
        connection.request = b""
        if b"\r\nconnection: close" in head:
            self._over(connection)
        else:
            self._idle.append(connection)

    def _over(self, connection: Connection, why: str = "") -> None:
        """Close a connection; a request that was under way on it has failed, one that waits in the pool has not begun."""
        del self._open[connection.socket.fileno()]
        connection.socket.close()
        if connection.request:
            self._under_way -= 1
            self.outcomes[why] += 1
        elif connection in self._idle:
            self._idle.remove(connection)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--clients", type=int)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--bodies", type=Path, required=True, help="a file with a JSON body a line")
    parser.add_argument("--path", default="/recommend")
    given = parser.parse_args()
    generator = Generator(given.port, given.path, given.bodies.read_bytes().splitlines())
    began, used = time.perf_counter(), time.process_time()
    if given.clients:
        generator.closed(given.clients, given.seconds)
    else:
        generator.open(given.rate, given.seconds)
    said = {
        "seconds": time.perf_counter() - began,
        "outcomes": +generator.outcomes,
        "waits": [round(one, 3) for one in generator.waits],
        "late": [round(one, 3) for one in generator.late],
        "begun": [round(one - began, 3) for one in generator.begun],
        "cpu": time.process_time() - used,
    }
    json.dump(said, sys.stdout)


if __name__ == "__main__":
    main()
