"""HTTP/1.1 of one connection: uvicorn's, with bounds that a proxy would set otherwise, and requests turned away before they are read.

A request is handed to the application when it has come whole, or 64 kB of it: who sends slowly takes none of the places of those who are
answered. `tick` is called once a second, and counts; a worker that stood still for a while has waited for nobody meanwhile.
"""

from __future__ import annotations

import asyncio
from itertools import chain
from typing import Any, cast

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from nightloom.serving.api.admission import raw_head
from nightloom.serving.api.guard import STREAMED, Guard
from nightloom.serving.api.headers import HEADERS
from nightloom.serving.api.problems import problem

BIGGEST_HEAD = 256 << 10
"""Bytes of a request before its body. There is room for a `page` of the greatest length, a character of which may be 12 bytes of an
address: the application says what is wrong with it."""
SLOWEST = 10
"""Seconds that the head of a request may take, and each next part of its body."""
PART = 16 << 10
"""Bytes of such a part; of a body without a limit whatever comes is one."""
IDLE = 30
"""Seconds for which a connection is kept that asks nothing, or reads nothing of its answer."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.admission = cast(Guard, self.app).admission
        self._ticks = 0
        """Since the client has done what is waited for."""
        self._in_head = self._in_message = self._leaving = self._refused = False
        self._came, self._head_bytes, self._part_bytes = 0, 0, 0
        """Bytes that came last; those of a head after the first that came with it; those of a part of a body."""
        self._whole: RequestResponseCycle | None = None
        """What waits until its request is whole."""
        self._fault = 400

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come."""
        if len(self.connections) < self.admission.connections:
            super().connection_made(cast(asyncio.Transport, OneWrite(transport)))
            return
        self.transport = transport
        transport.write(self.admission.turn_away("", (), keep_alive=False))
        transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        self._whole = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes."""
        if self._refused:
            return
        self._head_bytes = self._head_bytes + len(data) if self._in_head else 0
        self._came = len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > BIGGEST_HEAD:
            self._refuse(431)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._in_head = self._in_message = True
        self._ticks = self._part_bytes = self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """All before the body."""
        if self._head_bytes + self._came > BIGGEST_HEAD and len(self.url) + sum(map(len, chain(*self.headers))) > BIGGEST_HEAD:
            self._fault = 431
            raise ValueError("the head is too large")  # the parser ends with it, and the answer is that of a faulty request
        self._in_head, self._ticks = False, 0
        super().on_headers_complete()
        if self._leaving or self.parser.should_upgrade():
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Some of the body."""
        super().on_body(body)
        self._part_bytes += len(body)
        if self._part_bytes >= PART or self.scope["path"] == STREAMED:
            self._ticks = self._part_bytes = 0
        if self._whole is not None and len(self._whole.body) > HIGH_WATER_LIMIT:
            self._begin(self._whole)

    def on_message_complete(self) -> None:
        """The last byte of a request."""
        self._in_message = False
        super().on_message_complete()
        if self._whole is not None:
            self._begin(self._whole)

    def _start_asgi_task(self, cycle: RequestResponseCycle, _app: Any) -> None:
        """It is this request's turn on its connection."""
        if cycle.more_body and not cycle.waiting_for_100_continue and cycle.scope["path"] != STREAMED:
            self._whole = cycle
        else:
            self._begin(cycle)

    def _begin(self, cycle: RequestResponseCycle) -> None:
        self._whole = None
        path = cycle.scope["path"]
        if self.admission.begin(path):
            task = self.loop.create_task(self._answer(cycle, path))
            task.add_done_callback(self.tasks.discard)
            self.tasks.add(task)
            return
        if self.flow.write_paused:  # it asks again and again, and reads nothing
            self.transport.abort()
            return
        self.transport.write(self.admission.turn_away(cycle.scope["method"], cycle.scope["headers"], keep_alive=cycle.keep_alive))
        cycle.response_started = cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        self.loop.call_soon(self.on_response_complete) if self.pipeline else self.on_response_complete()

    async def _answer(self, cycle: RequestResponseCycle, path: str) -> None:
        try:
            await cycle.run_asgi(self.app)
        finally:
            self.admission.end(path)

    def on_response_complete(self) -> None:
        """An answer is on its way, and the next request of the connection may be."""
        self._ticks = 0
        cast(OneWrite, self.transport).flush()
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)

    def resume_writing(self) -> None:
        """The client has read on."""
        self._ticks = 0
        super().resume_writing()

    def tick(self) -> None:
        """A second has gone by."""
        if self._refused:
            self.transport.abort()
            return
        asked = self.cycle is not None and not self.cycle.response_complete
        unread = self.flow.write_paused or self.transport.is_closing()  # the client does not read what it is told
        if not unread and ((asked and (self._in_head or not self._in_message)) or self.flow.read_paused):
            return  # the client waits for us
        self._ticks += 1
        if unread or not self._in_message:
            if self._ticks > IDLE:
                self.transport.abort()
        elif self._ticks > SLOWEST:
            if self._in_head or not self.cycle.response_started:
                self._refuse(408)
            else:
                self.transport.close()

    def leave(self) -> None:
        """The worker ends: whoever asks once more is told that the connection does."""
        self._leaving = True

    def send_400_response(self, _msg: str) -> None:
        """Refuse what is no HTTP."""
        self._refuse(self._fault)

    def _refuse(self, status: int) -> None:
        words = {
            400: "This is no HTTP request.",
            408: f"The request did not come within {SLOWEST} seconds, or its next part.",
            431: f"The head of a request has {BIGGEST_HEAD:,} bytes at most.",
        }
        said = problem(status, words[status], headers={"connection": "close"})
        self.transport.write(raw_head(status, [*said.raw_headers, *HEADERS]) + b"\r\n" + bytes(said.body))
        self.transport.write_eof()  # not closed at once: what is still to come would make the system forget what was said
        self._refused = True
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()


class OneWrite:
    """A transport that sends the head of an answer together with the body: each write is a call of the system, and wakes the client.

    Args:
        transport: of the connection.
    """

    __slots__ = ("_head", "_transport", "abort", "get_extra_info", "is_closing", "pause_reading", "resume_reading")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport, self._head = transport, b""
        self.abort = transport.abort
        self.get_extra_info, self.is_closing = transport.get_extra_info, transport.is_closing
        self.pause_reading, self.resume_reading = transport.pause_reading, transport.resume_reading

    def write(self, data: bytes) -> None:
        """Send, but for a head, which waits for what comes next."""
        if self._head:
            self._transport.write(self._head + data)
            self._head = b""
        elif data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 1"):
            self._head = data
        else:
            self._transport.write(data)

    def flush(self) -> None:
        """Send what waits."""
        if self._head:
            self._transport.write(self._head)
            self._head = b""

    def write_eof(self) -> None:
        """Send what waits, and nothing more."""
        self.flush()
        self._transport.write_eof()

    def close(self) -> None:
        """Send what waits, and close."""
        self.flush()
        self._transport.close()
