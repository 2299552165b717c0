"""Keys, limits, and errors that say nothing of the inside."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from nightloom.core.errors import InputError
from nightloom.serving.api.keys import Keys
from nightloom.serving.service import Service
from tests.service_app import Worker, event

READER, WRITER, ADMIN = ("reader-0123456789", "writer-0123456789", "admin-0123456789")


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_who_may_do_what(home: Path) -> None:
    asked: list[tuple[int, str, str, Any]] = [
        (0, "POST", "/recommend", {"user_id": "u1"}),
        (0, "GET", "/items", None),
        (0, "GET", "/users/u1", None),
        (0, "GET", "/metrics", None),
        (0, "GET", "/openapi.json", None),
        (1, "POST", "/events", {"events": [event("e1", "u1", "i1")]}),
        (1, "POST", "/feedback", {}),
        (1, "PUT", "/items/i1", {"title": "T"}),
        (1, "DELETE", "/events/e1", None),
        (2, "DELETE", "/items/i1", None),
        (2, "DELETE", "/users/u1", None),
    ]
    with Worker(home, {READER: "reader", WRITER: "writer", ADMIN: "admin"}) as worker:
        for needed, method, path, body in asked:
            assert worker(method, path, body).status_code == 401
            assert worker(method, path, body, headers=bearer("wrong-0123456789")).status_code == 401
            assert worker(method, path, body, headers={"authorization": f"Basic {ADMIN}"}).status_code == 401
            for held, key in enumerate((READER, WRITER, ADMIN)):
                found = worker(method, path, body, headers=bearer(key)).status_code
                assert (found == 403) == (held < needed), (method, path, key, found)
        for path in ("/healthz", "/readyz", "/version"):
            assert worker("GET", path).status_code == 200
        refused = worker("GET", "/items")
        assert refused.headers["www-authenticate"] == "Bearer"
        assert refused.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("said", ["reader", "boss:0123456789abcdef", "reader:short", "reader:0123456789abcdéf"])
def test_keys_that_are_not_written_so_are_refused(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTLOOM_API_KEYS", said)
    with pytest.raises(InputError, match="NIGHTLOOM_API_KEYS"):
        Keys.of_environment()


def test_a_method_that_a_path_does_not_take(worker: Worker) -> None:
    for path, wanted in (("/users/a/b", "DELETE, GET"), ("/items/x", "DELETE, GET, PATCH, PUT"), ("/recommend", "POST")):
        found = worker("TRACE", path)
        assert (found.status_code, found.headers["allow"]) == (405, wanted)


def test_large_bodies_are_refused(worker: Worker) -> None:
    large = b'{"user_id": "' + b"x" * (1 << 20) + b'"}'
    assert worker("POST", "/recommend", content=large).status_code == 413

    async def parts() -> Any:
        for start in range(0, len(large), 1 << 16):
            yield large[start : start + (1 << 16)]

    found = worker("POST", "/recommend", content=parts(), headers={"content-type": "application/json"})
    assert (found.status_code, found.headers["content-type"]) == (413, "application/problem+json")


def test_a_fault_says_nothing_of_the_inside(worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    def broken(*_: object) -> Any:
        raise RuntimeError("the password is 1234")

    monkeypatch.setattr(Service, "recommend", broken)
    found = worker("POST", "/recommend", {"user_id": "u1"}, headers={"x-request-id": "mine-1"})
    assert found.status_code == 500
    assert "1234" not in found.text
    assert "mine-1" in found.json()["detail"]
    assert found.headers["x-request-id"] == "mine-1"


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting a small disk needs root")
def test_a_full_disk_is_507_and_recommendations_go_on(made: Path, home: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        shutil.copy(home / "champion.json", disk)
        with Worker(disk) as worker:
            worker.tell(event("kept", "u1", "i1"))
            subprocess.run(["dd", "if=/dev/zero", f"of={disk / 'filler'}", "bs=4k"], capture_output=True, check=False)
            found = worker("POST", "/events", {"events": [event(f"e{n}" + "x" * 400, "u1", "i1") for n in range(1000)]})
            assert (found.status_code, found.headers["content-type"]) == (507, "application/problem+json")
            assert str(disk) not in found.text
            assert worker.ask(user_id="u1")["items"]
            (disk / "filler").unlink()
            worker.tell(event("after", "u1", "i2"))
            stored = {one["event_id"] for one in worker("GET", "/users/u1").json()["events"]} - {None}
            assert stored == {"kept", "after"}
    finally:
        subprocess.run(["umount", "-l", str(disk)], capture_output=True, check=False)
