"""What every request passes: a request id, keys, limits on size and load, counters, a log line, headers that browsers obey.

Plain ASGI, since a middleware of the framework costs as much as a recommendation.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException

from nightloom.serving.api.keys import Keys
from nightloom.serving.api.metrics import Metrics
from nightloom.serving.api.pace import Pace
from nightloom.serving.api.problems import REQUEST, SOON, problem
from nightloom.serving.settings import MOST_AT_ONCE

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

BIGGEST_BODY = 1 << 20
"""Bytes of a request."""
STREAMED = "/bulk/events"
"""Path whose body is read a line at a time, and may be of any size."""
SLOWEST_BODY = 10.0
"""Seconds that a part of a body may take."""
OPEN = ("/healthz", "/readyz", "/version", "/", "/static")
"""Paths that need no key; what lies under the last one, too."""
PACED = frozenset({"/recommend", "/similar", "/search"})
"""Paths whose answers take the processor, so that requests wait for each other."""
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", CSP.encode()),
]
CROWDED = problem(429, "The service has more requests than it can answer in time. Try again in a second.", headers=SOON)
log = logging.getLogger("nightloom.access")
faults = logging.getLogger("nightloom.serving")


class Guard:
    """Goes round an app.

    Args:
        app: the app.
        keys: who may do what.
        metrics: counts requests.
        at_once: most requests at a time.
    """

    def __init__(self, app: App, keys: Keys, metrics: Metrics, at_once: int = MOST_AT_ONCE) -> None:
        self.app, self.keys, self.metrics, self._at_once = app, keys, metrics, at_once
        self._now, self.pace = 0, Pace(at_once)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if self._crowded(scope["path"]):
            await self._turn_away(scope, send)
            return
        began = time.perf_counter()
        headers = dict(scope["headers"])
        request_id = _request_id(headers.get(b"x-request-id", b""))
        scope[REQUEST] = request_id
        status, size = 500, 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *HEADERS, (b"x-request-id", request_id.encode())]
            await send(message)

        async def read() -> Message:
            nonlocal size
            try:
                async with asyncio.timeout(SLOWEST_BODY):
                    message = await receive()
            except TimeoutError as error:
                raise HTTPException(408, f"The request's body did not come within {SLOWEST_BODY:g} seconds.") from error
            size += len(message.get("body", b""))
            if size > BIGGEST_BODY and scope["path"] != STREAMED:
                raise HTTPException(413, f"A request has {BIGGEST_BODY:,} bytes at most.")
            return message

        self._now += 1
        refused = self._refusal(scope, headers)
        paced = refused is None and scope["path"] in PACED
        if paced:
            self.pace.begin()
        try:
            await (refused or self.app)(scope, read, answer)
        except Exception:  # it was answered already
            faults.exception("request %s failed", request_id)
        finally:
            self._now -= 1
            if paced:
                self.pace.end()
            seconds = time.perf_counter() - began
            route = scope.get("route")
            path = getattr(route, "path", "other")
            self.metrics.count(scope["method"], path, status, seconds)
            if log.isEnabledFor(logging.INFO):
                said = {"id": request_id, "method": scope["method"], "path": path, "status": status, "ms": round(seconds * 1000, 2)}
                log.info(json.dumps(said))

    def _crowded(self, path: str) -> bool:
        """Whether one more request of a path is too many."""
        return (self._now >= self._at_once and not _probe(path)) or (path in PACED and self.pace.full)

    async def _turn_away(self, scope: Scope, send: Send) -> None:
        """Tell a request to come back, unread: the less a refusal costs, the more is left for answers."""
        self.metrics.rejected += 1
        self.metrics.count(scope["method"], "other", CROWDED.status_code, 0.0)
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = _request_id(given)
        headers = [*CROWDED.raw_headers, *HEADERS, (b"x-request-id", request_id.encode())]
        await send({"type": "http.response.start", "status": CROWDED.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": CROWDED.body})
        if log.isEnabledFor(logging.INFO):
            said = {"id": request_id, "method": scope["method"], "path": "other", "status": CROWDED.status_code, "ms": 0.0}
            log.info(json.dumps(said))

    def _refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> App | None:
        """The answer where the request is not let in."""
        path, method = scope["path"], scope["method"]
        probe = _probe(path)
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or (int(length) > BIGGEST_BODY and path != STREAMED):
            return problem(413, f"A request has {BIGGEST_BODY:,} bytes at most.")
        if not probe and (said := self.keys.refusal(method, path, headers.get(b"authorization", b""))):
            status, words = said
            return problem(status, words, headers={"www-authenticate": "Bearer"} if status == 401 else None)
        return None


def _probe(path: str) -> bool:
    """Whether a path needs no key, and is answered however many ask."""
    return path in OPEN or path.startswith(f"{OPEN[-1]}/")


def _request_id(given: bytes) -> str:
    """The caller's id of the request where it is a plain one, else a new one."""
    text = given.decode("latin-1")
    return text if 0 < len(text) <= 64 and text.isascii() and text.replace("-", "").replace("_", "").isalnum() else secrets.token_hex(8)
