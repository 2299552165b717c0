"""Which requests a worker takes: as many as it can answer in time. The others are told to come back, unread.

The server asks (`nightloom.serving.server.protocol`) as soon as a request has come, before a line of the application runs: the less a
refusal costs, the more is left for answers. A worker reads what all its connections have sent, and then answers what it has taken, one
request after the other. So what is taken at a time is what a request waits for.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

from nightloom.serving.api.headers import HEADERS, REQUEST_ID, request_id
from nightloom.serving.api.metrics import Metrics
from nightloom.serving.api.pace import Pace
from nightloom.serving.api.problems import SOON, problem

OPEN = ("/healthz", "/readyz", "/version", "/", "/static")
"""Paths that need no key, and are answered however many ask; what lies under the last one, too."""
PACED = frozenset({"/recommend", "/similar", "/search"})
"""Paths whose answers take the processor, so that requests wait for each other."""
CROWDED = problem(429, "The service has more requests than it can answer in time. Try again in a second.", headers=SOON)
log = logging.getLogger("nightloom.access")


class Admission:
    """Counts what is under way.

    Args:
        metrics: counts those that are told to come back.
        at_once: most requests at a time.
        connections: most of them that are open at a time.

    Attributes:
        waiting: of the paced requests that were taken those that have not begun, as the server hands them in; the oldest first.
    """

    def __init__(self, metrics: Metrics, at_once: int, connections: int) -> None:
        self.metrics, self.connections = metrics, connections
        self.waiting = deque[tuple[Any, Any]]()
        self._now, self._at_once, self.pace = 0, at_once, Pace(at_once)
        self._head = raw_head(CROWDED.status_code, [*CROWDED.raw_headers, *HEADERS])

    def full(self, path: str) -> bool:
        """Whether a request of a path were one too many."""
        return (self._now >= self._at_once and not open_to_all(path)) or (path in PACED and self.pace.full)

    def begin(self, path: str) -> bool:
        """Take a request of a path, if it is not one too many; then `end` follows."""
        if self.full(path):
            self.pace.refuse()
            return False
        self._now += 1
        if path in PACED:
            self.pace.begin()
        return True

    def end(self, path: str, *, answered: bool = True) -> None:
        """It is over, answered or turned away after all."""
        self._now -= 1
        if path in PACED:
            self.pace.end(answered=answered)

    def turn_away(self, method: str, headers: Iterable[tuple[bytes, bytes]], *, keep_alive: bool) -> bytes:
        """The whole answer to a request that is not taken, which is counted and logged."""
        self.metrics.rejected += 1
        identity = self.told(method, CROWDED.status_code, next((value for name, value in headers if name == REQUEST_ID), b""))
        close = b"" if keep_alive else b"connection: close\r\n"
        body = b"" if method == "HEAD" else bytes(CROWDED.body)
        return b"%s%s%s: %s\r\n\r\n%s" % (self._head, close, REQUEST_ID, identity.encode(), body)

    def told(self, method: str, status: int, given: bytes = b"") -> str:
        """Count and log a request that the application does not see; its id.

        Args:
            method: of the request, as far as it was read.
            status: of the answer.
            given: the caller's id of it.
        """
        self.metrics.count(method, "other", status, 0.0)
        identity = request_id(given)
        if log.isEnabledFor(logging.INFO):
            log.info(json.dumps({"id": identity, "method": method, "path": "other", "status": status, "ms": 0.0}))
        return identity


def open_to_all(path: str) -> bool:
    """Whether a path needs no key, and is answered however many ask."""
    return path in OPEN or path.startswith(f"{OPEN[-1]}/")


def raw_head(status: int, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The beginning of an answer as it goes over the wire, without its end."""
    return b"HTTP/1.1 %d %s\r\n" % (status, HTTPStatus(status).phrase.encode()) + b"".join(b"%s: %s\r\n" % one for one in headers)
