"""Waiting for an MLflow server that does not answer: a line each half a minute that says so, and an end.

MLflow itself tries again in silence: a request up to eight times, with two minutes for each, and a database for most of an hour. So the
requests of its client to this server go through an adapter that waits here. The address of a database is tried before MLflow does.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from nightloom.core.errors import InputError, NightloomError
from nightloom.core.secrets import hidden

WAIT = "NIGHTLOOM_MLFLOW_WAIT"
WAIT_SECONDS = 600.0
LINE_SECONDS = 30.0
"""How often a line says that a server is waited for."""
TRY_SECONDS = 1.0
"""Pause between two tries."""
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 5.0
"""A server that works has at least so long for an answer, however short it is waited for."""
AWAY = frozenset({502, 503, 504})
"""Answers of what stands before a server that is away."""
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def wait_seconds() -> float:
    """How long a server that does not answer is waited for.

    Raises:
        InputError: NIGHTLOOM_MLFLOW_WAIT is no number of seconds.
    """
    said = os.environ.get(WAIT, "")
    try:
        seconds = float(said) if said else WAIT_SECONDS
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise InputError(f"{WAIT}={said}: not a number of seconds. The default is {WAIT_SECONDS:g}.")
    return seconds


class Waiting:
    """One wait for a server, from its first failure on.

    Args:
        uri: MLflow's address.
    """

    def __init__(self, uri: str) -> None:
        self.uri, self.limit = uri, wait_seconds()
        self.began = self.said = time.monotonic()

    @property
    def left(self) -> float:
        """Seconds that it is waited for still."""
        return self.began + self.limit - time.monotonic()

    def say(self) -> None:
        """A line on standard error, where the last one was half a minute ago."""
        now = time.monotonic()
        if now - self.said >= LINE_SECONDS:
            self.said = now
            end = f"it is waited for up to {self.limit:,.0f} s ({WAIT})"
            sys.stderr.write(f"{hidden(self.uri)}: MLflow has not answered for {now - self.began:,.0f} s; {end}\n")
            sys.stderr.flush()

    def pause(self, why: object) -> None:
        """A moment until the next try.

        Args:
            why: what went wrong this time.

        Raises:
            NightloomError: it has been waited for long enough.
        """
        if self.left <= 0:
            raise NightloomError(
                f"{hidden(self.uri)}: the MLflow server does not answer, and was waited for {self.limit:,.0f} s ({WAIT}). Start it, or "
                f"correct NIGHTLOOM_MLFLOW_URI, then start again: finished stages are kept ({' '.join(str(why).split())[:200]})."
            )
        self.say()
        time.sleep(max(0.0, min(TRY_SECONDS, self.left)))


def patient(uri: str) -> None:
    """Have the requests of MLflow's client to a server wait as `Waiting` does; nothing for an address of a database."""
    if not uri.startswith(("http://", "https://")):
        return
    wait_seconds()
    from mlflow import environment_variables as settings
    from mlflow.utils import request_utils, rest_utils

    session = request_utils._get_request_session(
        settings.MLFLOW_HTTP_REQUEST_MAX_RETRIES.get(),
        settings.MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR.get(),
        settings.MLFLOW_HTTP_REQUEST_BACKOFF_JITTER.get(),
        rest_utils._TRANSIENT_FAILURE_RESPONSE_CODES,
        True,
        settings.MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER.get(),
    )
    place = uri.rstrip("/")
    if place not in session.adapters:
        session.mount(place, _adapter(uri, session.get_adapter(place)))


def connected(uri: str) -> None:
    """Wait until the server of a database takes a connection; nothing for other addresses.

    Raises:
        NightloomError: it does not, as long as NIGHTLOOM_MLFLOW_WAIT says.
    """
    parts = urlsplit(uri)
    port = PORTS.get(parts.scheme.partition("+")[0])
    if port is None or not parts.hostname:
        return
    waiting = None
    while True:
        try:
            socket.create_connection((parts.hostname, parts.port or port), CONNECT_SECONDS).close()
            return
        except OSError as error:
            waiting = waiting or Waiting(uri)
            waiting.pause(error)


def _adapter(uri: str, usual: Any) -> Any:
    """An adapter for `requests` that sends like MLflow's own, and waits where the server is away."""
    import requests
    from mlflow.utils.request_utils import TCPKeepAliveHTTPAdapter

    class Patient(TCPKeepAliveHTTPAdapter):
        def send(self, request: Any, *args: Any, timeout: Any = None, **more: Any) -> Any:
            waiting, body = None, request.body
            start = body.tell() if hasattr(body, "tell") else None
            while True:
                asked = Waiting(uri)
                try:
                    with _watched(waiting or asked):
                        answer = super().send(request, *args, timeout=_at_most(timeout, waiting or asked), **more)
                    if answer.status_code not in AWAY:
                        return answer
                    why: object = f"HTTP status {answer.status_code}"
                    answer.close()
                except (requests.ConnectionError, requests.Timeout) as error:
                    why = error
                waiting = waiting or asked
                waiting.pause(why)
                if start is not None:
                    body.seek(start)

    retry = usual.max_retries.new(connect=0, read=0, other=0, status_forcelist=set(usual.max_retries.status_forcelist) - AWAY)
    return Patient(max_retries=retry)


def _at_most(timeout: Any, waiting: Waiting) -> Any:
    """(connecting, reading): MLflow's time-out in seconds, but no longer than it is waited for."""
    reading = timeout[1] if isinstance(timeout, tuple) else timeout
    left = max(ANSWER_SECONDS, waiting.left)
    return CONNECT_SECONDS, left if reading is None else min(reading, left)


@contextmanager
def _watched(waiting: Waiting) -> Iterator[None]:
    """Say lines while a request hangs, where the server does not answer others either: a large file may take its time."""
    done = threading.Event()

    def watch() -> None:
        import requests

        while not done.wait(LINE_SECONDS):
            try:
                requests.get(f"{waiting.uri.rstrip('/')}/health", timeout=CONNECT_SECONDS).close()
            except requests.RequestException:
                if not done.is_set():
                    waiting.say()

    thread = threading.Thread(target=watch, name="mlflow-wait", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
