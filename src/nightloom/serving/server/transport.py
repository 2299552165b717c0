"""What stands between a connection's protocol and its transport: fewer calls of the system, and no more read than is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Sized

from uvicorn.protocols.http.flow_control import FlowControl


class TurnFlow(FlowControl):
    """Reads on only where no request waits for its turn: a client that sends many at once fills no memory.

    Args:
        transport: of the connection.
        waiting: requests that wait.
    """

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        """Read on, if it is time."""
        if not self._waiting:
            super().resume_reading()


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
        head, self._head = self._head, b""
        if head and not self.is_closing():
            self._transport.write(head)

    def write_eof(self) -> None:
        """Send what waits, and nothing more."""
        self.flush()
        self._transport.write_eof()

    def close(self) -> None:
        """Send what waits, and close."""
        self.flush()
        self._transport.close()
