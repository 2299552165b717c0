"""Requests to a service from a process of its own: so many clients that wait for their answers, or so many a second whatever it answers.

    python -m benchmarks.load_generator PORT SECONDS (--clients N | --rate N) --bodies FILE [--path /recommend]

Plain sockets, since a client library costs more than the answer. One line of JSON tells what became of the requests.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter, deque
from pathlib import Path

MOST_OPEN = 2_000
"""Connections at a time."""


class Connection(asyncio.Protocol):
    """One connection, with one request at a time under way."""

    def __init__(self) -> None:
        self._buffer, self._answer = b"", asyncio.get_running_loop().create_future()
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        lines = head.lower().split(b"\r\n")
        length = next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length")), 0)
        if len(body) >= length and not self._answer.done():
            self._buffer = b""
            self._answer.set_result((int(head.split(b" ", 2)[1]), b"retry-after" in head.lower()))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio calls it so
        self.lost = True
        if not self._answer.done():
            self._answer.set_exception(ConnectionResetError("the service closed the connection"))

    async def ask(self, request: bytes) -> tuple[int, bool]:
        """Status of the answer, and whether it says when to come back."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)  # type: ignore[attr-defined]
        found: tuple[int, bool] = await self._answer
        return found


class Generator:
    """Sends requests and notes what became of them.

    Args:
        port: of the service.
        path: that is asked.
        bodies: JSON of the requests, drawn at random.
    """

    def __init__(self, port: int, path: str, bodies: list[bytes]) -> None:
        self.port, self._idle, self._open = port, deque[Connection](), 0
        self.outcomes: Counter[str] = Counter()
        self.waits: list[float] = []
        self.begun: list[float] = []
        self.late: list[float] = []
        """Milliseconds by which requests were sent too late: so long the answers wait to be read, too, which is no wait of the service."""
        head = "POST {} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n"
        self._requests = [head.format(path, len(body)).encode() + body for body in bodies]

    async def one(self) -> None:
        began = time.perf_counter()
        try:
            connection = await self._connection()
            if connection is None:
                self.outcomes["not sent"] += 1
                return
            status, told = await connection.ask(random.choice(self._requests))
        except ConnectionRefusedError:
            self._open -= 1
            self.outcomes["refused"] += 1
            return
        except OSError:
            self._open -= 1
            self.outcomes["lost"] += 1
            return
        self._idle.append(connection)
        if status == 200:
            self.begun.append(began)
            self.waits.append(1000 * (time.perf_counter() - began))
        self.outcomes[str(status) + (" with retry-after" if told else "")] += 1

    async def _connection(self) -> Connection | None:
        while self._idle:
            found = self._idle.pop()
            if not found.lost:
                return found
            self._open -= 1
        if self._open >= MOST_OPEN:
            return None
        self._open += 1
        _, made = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", self.port)
        return made

    async def closed(self, clients: int, seconds: float) -> None:
        """Clients that ask one after the other."""
        ends = time.perf_counter() + seconds

        async def client() -> None:
            while time.perf_counter() < ends:
                await self.one()

        await asyncio.gather(*(client() for _ in range(clients)))

    async def open(self, rate: float, seconds: float) -> None:
        """Requests at random moments, so many a second, whatever became of those before."""
        began, due, under_way = time.perf_counter(), 0.0, set[asyncio.Task[None]]()
        while due < seconds:
            due += random.expovariate(rate)
            if (wait := began + due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            self.late.append(1000 * (time.perf_counter() - began - due))
            task = asyncio.create_task(self.one())
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--clients", type=int)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--bodies", type=Path, required=True, help="a file with a JSON body a line")
    parser.add_argument("--path", default="/recommend")
    given = parser.parse_args()
    bodies = given.bodies.read_bytes().splitlines()

    async def run() -> None:
        generator, began, used = Generator(given.port, given.path, bodies), time.perf_counter(), time.process_time()
        await (generator.closed(given.clients, given.seconds) if given.clients else generator.open(given.rate, given.seconds))
        said = {
            "seconds": time.perf_counter() - began,
            "outcomes": generator.outcomes,
            "waits": [round(one, 3) for one in generator.waits],
            "late": [round(one, 3) for one in generator.late],
            "begun": [round(one - began, 3) for one in generator.begun],
            "cpu": time.process_time() - used,
        }
        json.dump(said, sys.stdout)

    asyncio.run(run())


if __name__ == "__main__":
    main()
