"""`nightloom serve` as people start it: real processes, a real registry, two workers."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from nightloom.client import Client
from nightloom.core.errors import InputError
from nightloom.promotion.registry import Registry
from nightloom.serving.prepare import prepare
from tests.servers import free_port, until_it_answers
from tests.service_app import make_snapshot
from tests.serving_bundle import START, serving_bundle
from tests.tiny_models import tiny_bert
from tests.waiting import until

TAGS = {"nightloom.data_hash": "d" * 64, "nightloom.config_hash": "c" * 64, "nightloom.git": "unknown", "nightloom.night": "n1"}
ASKED = int(os.environ.get("ASKED", "200"))
IDLE = 1_100
"""Connections."""


def post(address: str, path: str, body: dict[str, Any]) -> Any:
    """The answer to a request over a connection of its own."""
    request = urllib.request.Request(address + path, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as found:
        return json.loads(found.read())


def register(registry: Registry, folder: Path, **said: Any) -> None:
    """Register and promote another version."""
    tracking = registry.tracking
    run = tracking.client.create_run(tracking.experiment("shop")).info.run_id
    registry.promote(registry.register("shop", serving_bundle(folder, **said), run, TAGS, "card", [["i1"]]))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A service with two workers."""
    folder = tmp_path_factory.mktemp("serve")
    root, port = folder / "mlruns", free_port()
    registry = Registry(root)
    make_snapshot(root / "snapshots" / "shop" / ("d" * 16))
    register(registry, folder / "first", encoder=str(tiny_bert(folder / "bert")))
    shutil.rmtree(root / "cache" / "encoders")  # as on another machine: it is fetched from where MLflow keeps files
    log = folder / "log"
    command = [sys.executable, "-m", "nightloom.cli", "serve", "--root", str(root), "--port", str(port), "--workers", "2"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        address = f"http://127.0.0.1:{port}"
        until_it_answers(f"{address}/readyz", process, log)
        yield SimpleNamespace(address=address, process=process, log=log, registry=registry, folder=folder, root=root, port=port)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def workers_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The processes that answer."""
    found = []
    for one in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie, or one that has just ended
            words = " ".join(one.cmdline())
            found += [one] if "spawn_main" in words and "resource_tracker" not in words else []
    return found


def test_an_answer_has_learned_from_every_event_before_it(served: SimpleNamespace) -> None:
    """Each request has a connection of its own, so that both workers are asked and told."""
    stale = 0
    for number in range(ASKED):
        user = f"u{number % max(7, ASKED // 20)}"
        item = post(served.address, "/recommend", {"user_id": user, "k": 1})["items"][0]["item_id"]
        said = {"event_id": f"e{number}", "user_id": user, "item_id": item, "event": "buy", "timestamp": START + number}
        assert post(served.address, "/events", {"events": [said]})["stored"] == 1
        stale += item in [one["item_id"] for one in post(served.address, "/recommend", {"user_id": user, "k": 20})["items"]]
    assert stale == 0
    until(lambda: asked_in(served.log) >= 2 * ASKED, 0.1)  # a line is written once its answer is on the way


def asked_in(log: Path) -> int:
    """Lines of a log that are recommendations."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return sum(line.get("path") == "/recommend" for line in lines)


def test_workers_hold_no_torch_and_both_answer(served: SimpleNamespace) -> None:
    processes = workers_of(served.process)
    assert len(processes) == 2
    for worker in processes:
        assert f"worker {worker.pid} answers at {served.address}" in served.log.read_text()
        assert worker.environ()["OMP_NUM_THREADS"] == "1"  # threads that wait in a loop would cost more than the answers
        maps = Path(f"/proc/{worker.pid}/maps").read_text()
        assert "numba" in maps
        assert not any(name in maps for name in ("libtorch", "pandas", "pyarrow"))
    time.sleep(1.5)  # until both have left their counters
    with urllib.request.urlopen(f"{served.address}/metrics", timeout=60) as found:
        text = found.read().decode()
    assert "nightloom_workers 2" in text
    asked = [
        line for line in text.splitlines() if line.startswith('nightloom_requests_total{method="POST",path="/recommend",status="200"}')
    ]
    assert int(asked[0].split()[-1]) >= 2 * ASKED


def test_connections_that_ask_nothing_keep_nobody_waiting(served: SimpleNamespace) -> None:
    """Of a crowd that has gone connections stay open; they take no place of those who ask."""
    least, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(least, min(4096, most)), most))
    with contextlib.ExitStack() as open_ones:
        for _ in range(IDLE):
            open_ones.enter_context(socket.create_connection(("127.0.0.1", served.port), timeout=10))
        asked = urllib.request.Request(f"{served.address}/recommend", b'{"k": 1}', {"content-type": "application/json"})
        with urllib.request.urlopen(asked, timeout=10) as found:
            assert found.status == 200
    resource.setrlimit(resource.RLIMIT_NOFILE, (least, most))


def test_the_client(served: SimpleNamespace) -> None:
    with Client(served.address) as client:
        client.put_item("a/new one?", {"title": "Brand new", "genres": "red"})
        assert [one["item_id"] for one in client.items("brand")] == ["a/new one?"]
        client.patch_item("a/new one?", {"price": 4})
        answer = client.recommend(history=["i1"], k=5, columns=["price"], items=["a/new one?", "i3"])
        assert {one.item_id: one.columns.get("price") for one in answer.items}["a/new one?"] == 4
        client.add_feedback("f1", answer.token, "impression", START + 500, depth=2)
        client.delete_item("a/new one?")
        assert list(client.items("brand")) == []
        client.add_events([{"event_id": "mine", "user_id": "me/1", "item_id": "i1", "event": "buy", "timestamp": START}])
        assert [one["event_id"] for one in client.user_events("me/1")] == ["mine"]
        client.delete_event("mine")
        many = ({"event_id": f"many{n}", "user_id": f"m{n}", "item_id": "i1", "event": "buy", "timestamp": START} for n in range(1200))
        assert client.add_many_events(many)["stored"] == 1200
        assert [one["event_id"] for one in client.user_events("m1199")] == ["many1199"]
        assert list(client.user_events("me/1")) == []
        client.forget_user("me/1")
        assert len(client.similar(["i1"], 3)) == 3
        with pytest.raises(InputError, match="422, k: "):
            client.recommend("u1", k=0)


def test_both_workers_read_a_new_items_text_and_find_it_in_words(served: SimpleNamespace) -> None:
    """Each request has a connection of its own, so that both workers are asked."""
    with Client(served.address) as client:
        for number in range(10):
            client.put_item("read", {"title": f"Dark king of the lost city {number}", "genres": "red"})
            for _ in range(4):
                with Client(served.address) as another:
                    answer = another.search(f"king dark lost city {number}", k=3)
                assert answer.meaning is True
                assert (answer.items[0].item_id, answer.items[0].match) == ("read", "words")
        described = client.recommend("u1", query="the story of a man and a dog in space", k=5)
        assert described.meaning is True
        assert len(described.items) == 5
        client.delete_item("read")


def test_a_port_that_is_taken_or_an_open_host_without_keys_is_refused(served: SimpleNamespace) -> None:
    def start(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "nightloom.cli", "serve", "shop", "--root", str(served.root), *more]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    taken, open_host = start("--port", str(served.port)), start("--host", "0.0.0.0", "--port", str(free_port()))
    assert (taken.returncode, open_host.returncode) == (2, 2)
    assert "taken" in taken.stderr
    assert "NIGHTLOOM_API_KEYS" in open_host.stderr


def test_a_service_starts_with_what_was_prepared_only_as_far_as_the_registry_agrees(served: SimpleNamespace, tmp_path: Path) -> None:
    """Of another registry: what was prepared last is another version than the champion, or there is no champion at all."""
    root, port, log = tmp_path / "mlruns", free_port(), tmp_path / "log"
    registry = Registry(root)
    register(registry, tmp_path / "first")
    register(registry, tmp_path / "second", scorers=("graph",))
    ready = prepare(registry, registry.versions("shop")[0], root)
    assert ready is not None
    assert (ready.version, ready.snapshot) == ("2", None)
    registry.rollback("shop")
    command = [sys.executable, "-m", "nightloom.cli", "serve", "shop", "--root", str(root), "--port", str(port), "--workers", "1"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        until_it_answers(f"http://127.0.0.1:{port}/readyz", process, log)
        with Client(f"http://127.0.0.1:{port}") as client:
            assert client.recommend("u1").version == "1"
    finally:
        process.terminate()
        process.wait(60)
    registry.client.delete_registered_model_alias("nightloom-shop", "champion")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert "no champion" in done.stderr


def until_version(address: str, version: str) -> None:
    with Client(address) as client:
        until(lambda: {client.recommend("u1").version for _ in range(6)} == {version}, 0.2)


def test_the_service_follows_the_registry_and_a_killed_worker_comes_back(served: SimpleNamespace) -> None:
    register(served.registry, served.folder / "second", scorers=("graph",))
    until_version(served.address, "2")
    served.registry.rollback("shop")
    until_version(served.address, "1")
    victim = workers_of(served.process)[0]
    os.kill(victim.pid, signal.SIGKILL)
    until(lambda: len([one for one in workers_of(served.process) if one.pid != victim.pid]) >= 2, 0.2)
    with Client(served.address) as client:
        assert client.recommend("u1").items


def test_the_end_writes_what_was_taken(served: SimpleNamespace) -> None:
    with Client(served.address) as client:
        client.add_events([{"event_id": "last", "user_id": "z", "item_id": "i1", "event": "buy", "timestamp": START}])
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(60) == 0
    assert "Traceback" not in served.log.read_text()
    from nightloom.serving.store import Store

    store = Store.open(served.root / "store" / "shop.db")
    assert [one.event_id for one in store.view().history("z", 5)] == ["last"]
    store.close()
