"""A process that answers: its app under uvicorn, on a socket of its own."""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import os
import signal
import socket
import sys
from functools import partial
from multiprocessing.synchronize import Event
from types import FrameType
from typing import Any, cast

import uvicorn

from nightloom.serving.api.guard import Guard
from nightloom.serving.app import create_app
from nightloom.serving.log import configure_log
from nightloom.serving.server.protocol import BoundedProtocol
from nightloom.serving.server.sockets import BACKLOG, bound
from nightloom.serving.settings import Settings

SWITCH_SECONDS = 0.0001
"""How long a thread of a worker keeps the interpreter's lock from another. Reasons, texts and another version have threads of their own;
with Python's own 5 ms each of them would stop the answers for so long whenever a kernel has let the lock go."""
LEAVE_SECONDS = 0.2
"""How long a worker that ends still reads what clients have sent meanwhile."""
ACCEPTED = 256
"""Clients that are taken between two looks at those who have come before."""
END_SECONDS = 20
"""How long it waits for answers that are under way."""
log = logging.getLogger("nightloom.serving")


def work(settings: Settings, host: str, port: int, serving: Event) -> None:
    """Answer until the process is told to end.

    Args:
        settings: of the app.
        host: address to listen at.
        port: there.
        serving: is set once this worker answers.
    """
    configure_log(settings.access_log)
    sys.setswitchinterval(SWITCH_SECONDS)
    server = Worker(create_app(settings), bound(host, port), serving)
    gc.freeze()  # what was imported stays: looking through all of it for garbage stops the answers for some 100 ms each time
    server.run()


class Worker(uvicorn.Server):
    """uvicorn's server, which also counts seconds for its connections, and ends with the process that has started it.

    Args:
        app: what answers.
        listener: where clients come.
        serving: is set once it answers.
    """

    def __init__(self, app: Guard, listener: socket.socket, serving: Event) -> None:
        config = uvicorn.Config(
            app,
            loop="uvloop",
            http=BoundedProtocol,
            ws="none",
            interface="asgi3",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=END_SECONDS,
        )
        super().__init__(config)
        self._listener, self._serving = listener, serving
        self._coming = set[asyncio.Task[Any]]()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal to end. Who has answered nobody has nothing to finish."""
        if not self.started:
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the model, then listen."""
        await super().startup(sockets or [])
        loop, parent = asyncio.get_running_loop(), multiprocessing.parent_process()
        if parent is not None:
            loop.add_reader(parent.sentinel, self._orphaned, parent.sentinel)
        self._listener.listen(BACKLOG)
        self._listener.setblocking(False)
        loop.add_reader(self._listener, self._accept, loop)
        host, port = self._listener.getsockname()[:2]
        log.info("worker %s answers at http://%s:%s", os.getpid(), f"[{host}]" if ":" in host else host, port)
        self._counting = loop.create_task(self._count())
        self._serving.set()

    def _accept(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take the clients that have come. libuv itself takes one each time it looks, so that those of a crowd wait for many answers."""
        for _ in range(ACCEPTED):
            try:
                client, _ = self._listener.accept()
            except OSError:  # there are no more, one has gone again, or there are no more files
                return
            task = loop.create_task(loop.connect_accepted_socket(partial(self._protocol, client), client))
            self._coming.add(task)
            task.add_done_callback(self._coming.discard)

    def _protocol(self, client: socket.socket) -> BoundedProtocol:
        return BoundedProtocol(client, config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    def _orphaned(self, sentinel: int) -> None:
        asyncio.get_running_loop().remove_reader(sentinel)
        self.should_exit = True

    async def _count(self) -> None:
        while True:
            await asyncio.sleep(1)
            for connection in self._connections():
                connection.tick()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take nobody new, answer what was sent before, and close."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listener)
        self._accept(loop)
        self._listener.close()
        for connection in self._connections():
            connection.leave()
        await asyncio.sleep(LEAVE_SECONDS)
        await super().shutdown(sockets)
        self._counting.cancel()

    def _connections(self) -> list[BoundedProtocol]:
        return cast(list[BoundedProtocol], list(self.server_state.connections))
