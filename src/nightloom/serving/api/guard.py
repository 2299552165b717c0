"""What every request passes: a request id, keys, a limit on size, counters, a log line, headers that browsers obey.

Plain ASGI, since a middleware of the framework costs as much as a recommendation. Load, slow senders and large heads are the server's
matter (`nightloom.serving.api.admission`, `nightloom.serving.server.protocol`).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException

from nightloom.serving.api.admission import Admission, open_to_all
from nightloom.serving.api.headers import HEADERS, REQUEST_ID, request_id
from nightloom.serving.api.keys import Keys
from nightloom.serving.api.metrics import Metrics
from nightloom.serving.api.problems import REQUEST, problem

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

BIGGEST_BODY = 1 << 20
"""Bytes of a request."""
STREAMED = "/bulk/events"
"""Path whose body is read a line at a time, and may be of any size."""
log = logging.getLogger("nightloom.access")
faults = logging.getLogger("nightloom.serving")


class Guard:
    """Goes round an app.

    Args:
        app: the app.
        keys: who may do what.
        metrics: counts requests.
        admission: asked by the server which requests come here at all.
    """

    def __init__(self, app: App, keys: Keys, metrics: Metrics, admission: Admission) -> None:
        self.app, self.keys, self.metrics, self.admission = app, keys, metrics, admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = dict(scope["headers"])
        identity = request_id(headers.get(REQUEST_ID, b""))
        scope[REQUEST] = identity
        status, size = 500, 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *HEADERS, (REQUEST_ID, identity.encode())]
            await send(message)

        async def read() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > BIGGEST_BODY and scope["path"] != STREAMED:
                raise HTTPException(413, f"A request has {BIGGEST_BODY:,} bytes at most.")
            return message

        try:
            await (self.refusal(scope, headers) or self.app)(scope, read, answer)
        except Exception:  # it was answered already
            faults.exception("request %s failed", identity)
        finally:
            seconds = time.perf_counter() - began
            route = scope.get("route")
            path = getattr(route, "path", "other")
            self.metrics.count(scope["method"], path, status, seconds)
            if log.isEnabledFor(logging.INFO):
                said = {"id": identity, "method": scope["method"], "path": path, "status": status, "ms": round(seconds * 1000, 2)}
                log.info(json.dumps(said))

    def refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> App | None:
        """The answer where a request is not let in; nothing of its body is read."""
        path, method = scope["path"], scope["method"]
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or (int(length) > BIGGEST_BODY and path != STREAMED):
            return problem(413, f"A request has {BIGGEST_BODY:,} bytes at most.")
        if not open_to_all(path) and (said := self.keys.refusal(method, path, headers.get(b"authorization", b""))):
            status, words = said
            return problem(status, words, headers={"www-authenticate": "Bearer"} if status == 401 else None)
        return None
