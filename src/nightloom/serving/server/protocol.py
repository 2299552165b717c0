"""HTTP/1.1 of one connection: uvicorn's, with bounds that a proxy would set otherwise, and requests turned away before they are read.

A request is handed to the application when it has come whole, or 64 kB of it: who sends slowly takes none of the places of those who are
answered. `tick` is called once a second, and counts; a worker that stood still for a while has waited for nobody meanwhile.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from functools import partial
from itertools import chain
from typing import Any, cast

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from nightloom.serving.api.admission import PACED, raw_head
from nightloom.serving.api.guard import STREAMED, Guard, Scope
from nightloom.serving.api.headers import HEADERS, REQUEST_ID, request_id
from nightloom.serving.api.problems import REQUEST, problem
from nightloom.serving.server.sockets import age
from nightloom.serving.server.transport import OneWrite, TurnFlow

BIGGEST_HEAD = 256 << 10
"""Bytes of a request before its body, or after it, or of what stands between two parts of it."""
BIGGEST_ADDRESS = (1 << 16) - 1
"""Bytes of an address that the parser takes apart."""
SLOWEST = 10
"""Seconds that the head of a request may take, and each next part of its body."""
PART = 16 << 10
"""Bytes of such a part; of a body without a limit whatever comes is one."""
IDLE = 30
"""Seconds for which a connection is kept that asks nothing, or reads nothing of its answer."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection.

    Args:
        client: its socket.
        more: what uvicorn hands in.
    """

    def __init__(self, client: socket.socket, **more: Any) -> None:
        super().__init__(**more)
        self._client = client
        self._guard = cast(Guard, self.app)
        self.admission = self._guard.admission
        self._ticks = 0
        """Since the client has done what is waited for."""
        self._in_head = self._in_message = self._upgrading = self._leaving = self._ended = self._refused = False
        self._came, self._first, self._head_bytes, self._part_bytes = 0, 0, 0, 0
        """Bytes that came last; that came with the first of a head; since then, or since some of a body; those of a part of a body."""
        self._turn: RequestResponseCycle | None = None
        """Whose turn it is, or was last."""
        self._whole: RequestResponseCycle | None = None
        """What waits until its request is whole."""
        self._unread: RequestResponseCycle | None = None
        """What waits until the client has read earlier answers."""
        self._fault, self._failed = 400, 0
        """Status of a request that the parser does not take; that of the refusal which waits for earlier answers."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come."""
        if len(self.connections) < self.admission.connections:
            super().connection_made(cast(asyncio.Transport, OneWrite(transport)))
            self.flow = TurnFlow(self.transport, self.pipeline)
            return
        self.transport = transport
        transport.write(self.admission.turn_away("", (), keep_alive=False))
        transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        self._whole = self._unread = None
        self._drop_turn()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends nothing more. What it has sent whole is still answered: that is whether the connection stays."""
        self._ended = True
        return not self._refused and self._earlier()

    def data_received(self, data: bytes) -> None:
        """Some bytes."""
        if self._refused or self._failed:
            return
        self._head_bytes = self._head_bytes + len(data) if self._in_message else 0
        self._came = len(data)
        self._feed(data)
        if self._in_message and self._head_bytes > BIGGEST_HEAD:
            self._fail(431)

    def _feed(self, data: bytes) -> None:
        rest = data
        try:
            while rest:
                try:
                    self.parser.feed_data(rest)
                    return
                except httptools.HttpParserUpgrade as upgrade:
                    rest = rest[upgrade.args[0] :]
                    head = self._stay()
                    self.parser.feed_data(head)  # of another parser
        except httptools.HttpParserError:
            self._fail(self._fault)

    def _stay(self) -> bytes:
        """The head of a request that asks for another protocol, as if it did not. The parser takes its body for that protocol's."""
        self._upgrading = False
        kept = [one for one in self.headers if one[0] not in (b"connection", b"upgrade")]
        if any(name == b"connection" and b"close" in value.lower() for name, value in self.headers):
            kept.append((b"connection", b"close"))
        first = b"%s %s HTTP/%s\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return first + b"".join(b"%s: %s\r\n" % one for one in kept) + b"\r\n"

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._in_head = self._in_message = True
        self._ticks = self._part_bytes = self._head_bytes = 0
        self._first = self._came
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of a head. Those after a body are none: a proxy may have looked at the head alone."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """All before the body."""
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise ValueError("this is no proxy")  # the parser ends with it, and the answer is that of a faulty request
            self._upgrading = True
            return
        if self._first + self._head_bytes > BIGGEST_HEAD and len(self.url) + sum(map(len, chain(*self.headers))) > BIGGEST_HEAD:
            self._fault = 431
            raise ValueError("the head is too large")
        if len(self.url) > BIGGEST_ADDRESS:
            self._fault = 414
            raise ValueError("the address is too large")
        self._in_head, self._ticks = False, 0
        super().on_headers_complete()
        if self._leaving:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Some of the body."""
        super().on_body(body)
        self._head_bytes = 0
        self._part_bytes += len(body)
        if self._part_bytes >= PART or self.scope["path"] == STREAMED:
            self._ticks = self._part_bytes = 0
        if self._whole is not None and len(self._whole.body) > HIGH_WATER_LIMIT:
            self._begin(self._whole)

    def on_message_complete(self) -> None:
        """The last byte of a request."""
        if self._upgrading:
            return
        self._in_message = False
        super().on_message_complete()
        if self._whole is not None:
            self._begin(self._whole)

    def _start_asgi_task(self, cycle: RequestResponseCycle, _app: Any) -> None:
        """It is this request's turn on its connection."""
        self._turn = cycle
        path = cycle.scope["path"]
        if not cycle.more_body or path == STREAMED:
            self._begin(cycle, came_before=not cycle.more_body)
            return
        if cycle.waiting_for_100_continue:
            if self.admission.full(path) or self._guard.refusal(cast(Scope, cycle.scope), dict(cycle.scope["headers"])) is not None:
                self._begin(cycle)
                return
            cycle.waiting_for_100_continue = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._whole = cycle

    def _begin(self, cycle: RequestResponseCycle, *, came_before: bool = False) -> None:
        """Have a request answered, or turned away.

        Args:
            cycle: the request.
            came_before: whether its last bytes came some time ago, and it has waited for its turn on its connection.
        """
        self._whole = None
        if self.flow.write_paused:  # who reads nothing takes no place either
            self._unread = cycle
            return
        path = cycle.scope["path"]
        if path not in PACED or cycle.waiting_for_100_continue:  # who has not sent the body takes no place of one who has
            if self.admission.begin(path):
                self._start(self._answer(cycle, path))
            else:
                self._turn_away(cycle)
            return
        waiting = self.admission.waiting
        (waiting.appendleft if came_before else waiting.append)((self, cycle))
        if self.admission.begin(path):
            self._start(self._answer_newest())
        else:  # it takes the place of the one that has waited longest
            its, oldest = waiting.popleft()
            its._turn_away(oldest)

    def _start(self, answer: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(answer)
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def _turn_away(self, cycle: RequestResponseCycle) -> None:
        said = self.admission.turn_away(cycle.scope["method"], cycle.scope["headers"], keep_alive=cycle.keep_alive)
        if self._refused:  # while it waited; nothing can be written any more
            return
        self.transport.write(said)
        cycle.response_started = cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        self.loop.call_soon(self.on_response_complete) if self.pipeline else self.on_response_complete()

    async def _answer_newest(self) -> None:
        its, newest = self.admission.waiting.pop()
        path = newest.scope["path"]
        if its.transport.is_closing() or self.admission.pace.late(partial(age, its._client)):
            self.admission.end(path, answered=False)
            its._turn_away(newest)
        else:
            await its._answer(newest, path)

    async def _answer(self, cycle: RequestResponseCycle, path: str) -> None:
        try:
            await cycle.run_asgi(self.app)
        finally:
            self.admission.end(path)

    def on_response_complete(self) -> None:
        """An answer is on its way, and the next request of the connection may be."""
        self._ticks = 0
        if self.transport.is_closing():
            return
        cast(OneWrite, self.transport).flush()
        cycle, app = self.pipeline.pop() if self.pipeline else (None, None)
        if cycle is not None and (not cycle.more_body or not (self._failed or self._ended)):
            self._start_asgi_task(cycle, app)
            self.flow.resume_reading()
        elif self._failed:
            self._refuse(self._failed)
        elif self._ended:
            self.transport.close()
        else:
            self.flow.resume_reading()

    def resume_writing(self) -> None:
        """The client has read on."""
        self._ticks = 0
        super().resume_writing()
        if (cycle := self._unread) is not None:
            self._unread = None
            self._begin(cycle, came_before=True)

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

    def _earlier(self) -> bool:
        """Whether a request that came whole has not been answered yet."""
        turn = self._turn
        return bool(self.pipeline) or (turn is not None and not turn.response_complete and not turn.more_body)

    def _fail(self, status: int) -> None:
        """Refuse what came last, after the answers to what came before."""
        if not self._earlier():
            self._refuse(status)
        elif not self._failed:
            self._in_head = self._in_message = False
            self._failed = status
            self.flow.pause_reading()

    def _refuse(self, status: int) -> None:
        words = {
            400: "This is no HTTP request.",
            408: f"The request did not come within {SLOWEST} seconds, or its next part.",
            414: f"An address has {BIGGEST_ADDRESS:,} bytes at most.",
            431: f"The head of a request has {BIGGEST_HEAD:,} bytes at most.",
        }
        turn = self._turn
        if turn is not None and not turn.response_complete and turn not in (self._whole, self._unread):  # it has begun, and counts there
            identity = str(turn.scope.get(REQUEST) or request_id(b""))
        else:
            identity = self.admission.told("" if turn is None or turn.response_complete else turn.scope["method"], status)
        said = problem(status, words[status], headers={"connection": "close"})
        headers = [*said.raw_headers, *HEADERS, (REQUEST_ID, identity.encode())]
        self.transport.write(raw_head(status, headers) + b"\r\n" + bytes(said.body))
        self.transport.write_eof()  # not closed at once: what is still to come would make the system forget what was said
        self._refused, self._in_head, self._in_message = True, False, False
        self._whole = self._unread = None
        self._drop_turn()

    def _drop_turn(self) -> None:
        """Whoever answers learns that nobody listens."""
        if self._turn is not None and not self._turn.response_complete:
            self._turn.disconnected = True
            self._turn.message_event.set()
