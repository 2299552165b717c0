"""`nightloom doctor`: a line for each part, secrets left out, exit code 1 where something fails."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest


def test_a_machine_that_runs_tests_is_ready(nightloom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NIGHTLOOM_MLFLOW_URI", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NIGHTLOOM_SQL_PASSWORD", "s3cret")
    monkeypatch.setenv("NIGHTLOOM_" + "ROOTS", "mlruns")  # a typo
    code, out, _ = nightloom("doctor", "--root", tmp_path)
    lines = [line.split() for line in out.splitlines()]
    found = {part for _, part, *_ in lines}
    assert found >= {"python", "packages", "torch", "disk", "memory", "mlflow", "prefect", "encoder", "variable", "fonts", "port"}
    assert code == (1 if any(mark == "fail" for mark, *_ in lines) else 0)
    assert "s3cret" not in out
    assert "is read by nothing -> did you mean NIGHTLOOM_ROOT?" in out
    assert list(tmp_path.iterdir()) == []


def test_servers_that_do_not_answer_fail_with_a_remedy(nightloom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTLOOM_MLFLOW_URI", "http://reader:s3cret@127.0.0.1:9")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    code, out, _ = nightloom("doctor", "--root", tmp_path)
    assert code == 1
    failed = {line.split()[1]: line for line in out.splitlines() if line.startswith("fail")}
    assert "does not answer" in failed["mlflow"]
    assert "correct NIGHTLOOM_MLFLOW_URI" in failed["mlflow"]
    assert "make ui" in failed["prefect"]
    assert "s3cret" not in out


def test_a_broken_database_and_a_taken_port_are_named(nightloom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NIGHTLOOM_MLFLOW_URI", raising=False)
    (tmp_path / "mlflow.db").write_text("no database, but long enough that SQLite looks at what it says\n" * 20)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        monkeypatch.setattr("nightloom.cli.doctor.PORTS", {server.getsockname()[1]: "PREFECT_PORT"})
        code, out, _ = nightloom("doctor", "--root", tmp_path)
    assert code == 1
    assert "is no MLflow database" in out
    assert "in use -> fine where it is Nightloom's own; else choose another for make ui with PREFECT_PORT=" in out
