"""A load generator: sends JSON bodies over kept connections to one port, and tells what came back and how long it took.

    python -m benchmarks.http_load --port 8000 --path /recommend --bodies FILE --clients 8 --seconds 10 [--rate 500]

Without a rate each client sends one request after the other (closed loop). With one, requests are due at even distances of time whether
the service keeps up or not, and latency counts from when a request was due (open loop, no coordinated omission). It runs in a process of
its own, so that its work is no part of the service's. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

END = b"\r\n\r\n"


class Connection(asyncio.Protocol):
    """One kept connection; one request at a time."""

    def __init__(self) -> None:
        self._received = b""
        self._wanted = -1
        self._status = 0
        self._answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport: Any = transport

    def ask(self, request: bytes) -> asyncio.Future[int]:
        """Send a request; the future gives the status of its answer."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        """Read on until the answer is whole."""
        self._received += data
        if self._wanted < 0:
            head = self._received.find(END)
            if head < 0:
                return
            lines = self._received[:head].lower().split(b"\r\n")
            self._status = int(lines[0].split(b" ", 2)[1])
            length = next((line.split(b":", 1)[1] for line in lines if line.startswith(b"content-length:")), b"0")
            self._wanted = head + len(END) + int(length)
        if len(self._received) >= self._wanted and self._answer is not None:
            self._received, self._wanted = self._received[self._wanted :], -1
            answer, self._answer = self._answer, None
            answer.set_result(self._status)

    def connection_lost(self, exc: Exception | None) -> None:
        """The service ended it: the request in flight has failed."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("the connection was ended"))


class Load:
    """What was sent, and what came back.

    Args:
        port: of the service, on this machine.
        requests: whole HTTP requests, sent in turn.
        seconds: how long requests are sent.
        rate: requests a second, all clients together; None: as fast as they are answered.
        most: requests after which it ends, if that is before the time.
    """

    def __init__(self, port: int, requests: list[bytes], seconds: float, rate: float | None, most: int | None) -> None:
        self._port, self._requests, self._seconds, self._rate = port, requests, seconds, rate
        self._most = most or sys.maxsize
        self._sent = 0
        self.statuses: Counter[int] = Counter()
        self.seconds: dict[int, list[float]] = {}

    async def run(self, clients: int) -> dict[str, Any]:
        """Send, and sum up."""
        connections = [await self._connect() for _ in range(clients)]
        gc.freeze()
        gc.disable()  # a pause of the generator would be told as the service's
        self._began = time.perf_counter()
        await asyncio.gather(*(self._client(one) for one in connections))
        took = time.perf_counter() - self._began
        figures: dict[str, Any] = {
            "requests": sum(self.statuses.values()),
            "statuses": {str(status): many for status, many in sorted(self.statuses.items())},
            "seconds": took,
            "a_second": self.statuses[200] / took,
            "cpu_seconds": time.process_time(),
        }
        for status, found in self.seconds.items():
            at = np.percentile(np.array(found) * 1000, [50, 99, 100])
            figures[f"ms_{status}"] = dict(zip(("p50", "p99", "longest"), at.round(3).tolist(), strict=True))
        return figures

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(Connection, "127.0.0.1", self._port))[1]

    async def _client(self, connection: Connection) -> None:
        while self._sent < self._most:
            number, self._sent = self._sent, self._sent + 1
            now = time.perf_counter()
            due = now if self._rate is None else self._began + number / self._rate
            if max(now, due) - self._began > self._seconds:
                return
            if due > now:
                await asyncio.sleep(due - now)
            try:
                status = await connection.ask(self._requests[number % len(self._requests)])
            except OSError:
                status, connection = 0, await self._connect()
            self.statuses[status] += 1
            self.seconds.setdefault(status, []).append(time.perf_counter() - due)


def whole(path: str, body: bytes) -> bytes:
    """An HTTP request with a JSON body."""
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def main(arguments: list[str] | None = None) -> int:
    """Run it; returns the process's exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default="/recommend")
    parser.add_argument("--bodies", type=Path, required=True, help="a file with a JSON body a line")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=float, help="requests a second of all clients together")
    parser.add_argument("--most", type=int, help="requests after which it ends")
    given = parser.parse_args(arguments)
    requests = [whole(given.path, line) for line in given.bodies.read_bytes().splitlines()]
    load = Load(given.port, requests, given.seconds, given.rate, given.most)
    print(json.dumps(asyncio.run(load.run(given.clients))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
