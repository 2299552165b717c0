"""A server that does not answer is waited for with lines, and not for ever."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from nightloom.core.errors import InputError, NightloomError
from nightloom.runs import mlflow_wait
from nightloom.runs.mlflow_store import reached
from nightloom.runs.tracking import Tracking


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Found(BaseHTTPRequestHandler):
    """Says of every experiment that it is there; the server counts requests and may say that it is busy first."""

    def do_GET(self) -> None:
        self.server.asked += 1  # type: ignore[attr-defined]
        busy = self.server.asked <= self.server.busy  # type: ignore[attr-defined]
        self.send_response(503 if busy else 200)
        self.end_headers()
        self.wfile.write(b"" if busy else b'{"experiment": {"experiment_id": "7", "name": "x"}}')

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def answering(port: int, busy: int = 0) -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", port), Found)
    server.asked, server.busy = 0, busy  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_wait, "LINE_SECONDS", 0.2)
    monkeypatch.setattr(mlflow_wait, "TRY_SECONDS", 0.05)
    monkeypatch.setattr(mlflow_wait, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(mlflow_wait, "ANSWER_SECONDS", 0.3)


def ask(monkeypatch: pytest.MonkeyPatch, root: Path, port: int, seconds: float) -> str:
    monkeypatch.setenv("NIGHTLOOM_MLFLOW_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("NIGHTLOOM_MLFLOW_WAIT", str(seconds))
    tracking = Tracking(root)
    with tracking.reached():
        return str(tracking.client.get_experiment("7").experiment_id)


def test_a_server_that_is_away_is_waited_for_with_lines_and_then_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Tracking(tmp_path / "first")  # imports MLflow
    port, began = free_port(), time.monotonic()
    with pytest.raises(
        NightloomError, match=rf"http://127\.0\.0\.1:{port}: the MLflow server does not answer, and was waited for 1 s"
    ) as end:
        ask(monkeypatch, tmp_path, port, 1.0)
    assert end.value.exit_code == 1
    assert 1.0 <= time.monotonic() - began < 3.0
    lines = capfd.readouterr().err.splitlines()
    assert 3 <= len(lines) <= 5
    assert all(
        f"http://127.0.0.1:{port}: MLflow has not answered for" in line and "up to 1 s (NIGHTLOOM_MLFLOW_WAIT)" in line for line in lines
    )


def test_a_server_that_comes_back_is_asked_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    port = free_port()
    found: list[str] = []
    asking = threading.Thread(target=lambda: found.append(ask(monkeypatch, tmp_path, port, 30.0)))
    asking.start()
    time.sleep(0.4)
    with answering(port, busy=2):
        asking.join(20)
    assert found == ["7"]


def test_one_that_takes_connections_and_says_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        began = time.monotonic()
        with pytest.raises(NightloomError, match="does not answer, and was waited for 1 s"):
            ask(monkeypatch, tmp_path, deaf.getsockname()[1], 1.0)
        assert time.monotonic() - began < 5.0
    assert "MLflow has not answered" in capfd.readouterr().err


def test_the_server_of_a_database(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("NIGHTLOOM_MLFLOW_WAIT", "0.5")
    uri = f"postgresql://ann:planted-word@127.0.0.1:{free_port()}/mlflow"
    with pytest.raises(NightloomError, match="does not answer, and was waited for") as end, reached(uri):
        pass
    said = str(end.value) + capfd.readouterr().err
    assert "has not answered for" in said
    assert "planted-word" not in said


@pytest.mark.parametrize("said", ["soon", "-1", "nan", "inf"])
def test_a_wait_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv("NIGHTLOOM_MLFLOW_WAIT", said)
    with pytest.raises(InputError, match="NIGHTLOOM_MLFLOW_WAIT"):
        mlflow_wait.wait_seconds()
