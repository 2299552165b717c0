"""How many recommendations a second the service answers, and what one costs, beside MLflow's scoring server and FastAPI with the pyfunc.

    python -m flows.nightly --preset movies-small
    python -m benchmarks.serving_http movies-small [--seconds 10] [--rounds 2] [--steady 120] [--table FILE]

All serve the same champion with as many workers, one after the other in turn, so that other work on the machine hits all. The load
generator is a process of its own (`benchmarks.load_generator`). CPU is that of the server's processes, divided by its answers. Requests:
histories of random items with times within the last hundred days, and users of the snapshot by their id. Afterwards the memory of the
service's workers over many requests. What too much load and a change of version do: `benchmarks.serving_load`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shlex
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.service_process import champion_of
from benchmarks.serving_engine import table
from benchmarks.serving_load import users_of
from nightloom.promotion.registry import Registry
from nightloom.serving.model.engine import Engine

K, HISTORY, USERS, DAY = 20, 50, 2_000, 86_400
WORKERS = 2
START_SECONDS = 180
PYFUNC_APP = """
import mlflow.pyfunc, pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel
model, app = mlflow.pyfunc.load_model({uri!r}), FastAPI()
class Asked(BaseModel):
    history: list[str]
    times: list[int]
    k: int
@app.get("/ping")
async def ping() -> str:
    return "ready"
@app.post("/recommend")
async def recommend(asked: Asked) -> list[dict]:
    frame = pd.DataFrame({{"history": [asked.history], "times": [asked.times]}})
    return model.predict(frame, params={{"k": asked.k}}).to_dict("records")
"""
SPEED = ("served by", "asked", "recommendations a second", "CPU ms each", "CPU, times the service's", "p50 ms", "p99 ms")


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        port: on this machine.
        process: that was started; its children belong to it.
    """

    port: int
    process: psutil.Process

    def all(self) -> list[psutil.Process]:
        """Its processes."""
        return [self.process, *self.process.children(recursive=True)]

    def cpu(self) -> float:
        """CPU seconds of all its processes so far."""
        return sum(sum(one.cpu_times()[:2]) for one in self.all())

    def memory(self) -> list[float]:
        """MB of each worker, the greatest first."""
        return sorted((one.memory_info().rss / 1e6 for one in self.process.children(recursive=True)), reverse=True)[:WORKERS]


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the process's exit code."""
    given = parse(arguments)
    root = Path(os.environ.get("NIGHTLOOM_ROOT", "mlruns")).resolve()
    champion = champion_of(root, given.name)
    uri = Registry(root).client.get_model_version_download_uri(f"nightloom-{given.name}", champion.version).removeprefix("file://")
    with tempfile.TemporaryDirectory(prefix="nightloom-bench-") as scratch:
        home = Path(scratch)
        bodies = write_bodies(Engine.open(champion.folder), users_of(champion), home)
        python, workers = [sys.executable, "-m"], ["--workers", str(WORKERS)]
        service = [*python, "nightloom.cli", "serve", given.name, "--root", str(root), *workers, "--no-access-log"]
        (home / "pyfunc_app.py").write_text(PYFUNC_APP.format(uri=uri), encoding="utf-8")
        uvicorn = [*python, "uvicorn", "pyfunc_app:app", "--app-dir", str(home), "--no-access-log", "--log-level", "warning", *workers]
        mlflow = [*python, "mlflow", "models", "serve", "-m", uri, "--env-manager", "local", *workers]
        with (
            started("nightloom serve", service, "/readyz", home) as ours,
            started("FastAPI + pyfunc", uvicorn, "/ping", home) as fastapi,
            started("MLflow's server", mlflow, "/ping", home) as scoring,
        ):
            subjects = {
                ("nightloom serve", f"a history of {HISTORY} events"): (ours, "/recommend", bodies / "history.jsonl"),
                ("nightloom serve", "a stored user"): (ours, "/recommend", bodies / "users.jsonl"),
                ("FastAPI + pyfunc", f"a history of {HISTORY} events"): (fastapi, "/recommend", bodies / "history.jsonl"),
                ("MLflow's server", f"a history of {HISTORY} events"): (scoring, "/invocations", bodies / "invocations.jsonl"),
            }
            speed = in_turn(subjects, given)
            said = [memory(ours, bodies / "history.jsonl", given), ""] if given.steady else []
    busy = os.getloadavg()[0]
    text = "\n".join(
        [
            "# The service under load",
            "",
            f"{given.name}, {WORKERS} workers, {given.clients} clients with kept connections, the {K} best; the same champion everywhere.",
            "",
            *table(SPEED, speed),
            "",
            *said,
            f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({platform.machine()}), the load generator on them too; load average",
            f"{busy:.1f}. Command:",
            "",
            f"    python -m benchmarks.serving_http {shlex.join(sys.argv[1:] if arguments is None else arguments)}",
            "",
        ]
    )
    print(text)
    if given.table:
        given.table.write_text(text, encoding="utf-8")
    return 0


def write_bodies(engine: Engine, users: list[str], home: Path) -> Path:
    """Files of request bodies, a line each, in the forms of the three servers."""
    random, now = np.random.default_rng(0), int(time.time())
    own, theirs = [], []
    for _ in range(USERS):
        items = [engine.item_ids[item] for item in random.integers(0, len(engine.item_ids), HISTORY)]
        times = np.sort(now - random.integers(0, 100 * DAY, HISTORY)).tolist()
        own.append(json.dumps({"history": items, "times": times, "k": K}))
        theirs.append(json.dumps({"dataframe_records": [{"history": items, "times": times}], "params": {"k": K}}))
    stored = [json.dumps({"user_id": user, "k": K}) for user in users]
    for name, lines in (("history", own), ("invocations", theirs), ("users", stored)):
        (home / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return home


@contextlib.contextmanager
def started(name: str, command: list[str], ready: str, home: Path) -> Iterator[Server]:
    """A server that answers; it is ended afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = home / f"{port}.log"
    with log.open("wb") as out:
        process = subprocess.Popen([*command, "--port", str(port)], stdout=out, stderr=out, cwd=Path.cwd())
    server = Server(port, psutil.Process(process.pid))
    try:
        until = time.monotonic() + START_SECONDS
        while not answers(f"http://127.0.0.1:{port}{ready}"):
            if process.poll() is not None or time.monotonic() > until:
                sys.exit(f"{name} does not answer:\n{log.read_text(encoding='utf-8', errors='replace')[-2000:]}")
            time.sleep(0.2)
        yield server
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):  # it may have ended by itself, and said why
            for one in server.all():
                one.terminate()
        process.wait(60)


def answers(address: str) -> bool:
    """Whether a GET is answered by 200."""
    try:
        with urllib.request.urlopen(address, timeout=5) as found:
            return bool(found.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def load(port: int, path: str, bodies: Path, clients: int, seconds: float) -> dict[str, Any]:
    """What the generator says; see `benchmarks.load_generator`."""
    command = [sys.executable, "-m", "benchmarks.load_generator", str(port), str(seconds), "--path", path, "--bodies", str(bodies)]
    done = subprocess.run([*command, "--clients", str(clients)], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def in_turn(subjects: dict[tuple[str, str], tuple[Server, str, Path]], given: argparse.Namespace) -> list[tuple[str, ...]]:
    """Rate and CPU of each subject, in rounds; the best round's rate, since others only take time away, and the least CPU."""
    best: dict[tuple[str, str], tuple[float, float, list[float]]] = {}
    for server, path, bodies in subjects.values():
        load(server.port, path, bodies, given.clients, 2)
    for _ in range(given.rounds):
        for name, (server, path, bodies) in subjects.items():
            before = server.cpu()
            found = load(server.port, path, bodies, given.clients, given.seconds)
            if set(found["outcomes"]) != {"200"}:
                sys.exit(f"{name}: answers were {found['outcomes']}")
            many = found["outcomes"]["200"]
            one = (many / found["seconds"], (server.cpu() - before) / many * 1000, np.percentile(found["waits"], [50, 99]).tolist())
            former = best.get(name, (0.0, np.inf, one[2]))
            best[name] = (max(one[0], former[0]), min(one[1], former[1]), one[2] if one[0] > former[0] else former[2])
    unit = next(iter(best.values()))[1]
    return [
        (*name, f"{rate:,.0f}", f"{cpu:.3f}", f"{cpu / unit:.1f}", *(f"{one:.1f}" for one in waits))
        for name, (rate, cpu, waits) in best.items()
    ]


def memory(server: Server, bodies: Path, given: argparse.Namespace) -> str:
    """What the workers' memory does over many requests."""
    seconds, many, before = given.steady, 0, [0.0]
    for part, share in enumerate((0.1, 0.9)):  # the first tenth fills caches and pools
        many = sum(load(server.port, "/recommend", bodies, given.clients, seconds * share)["outcomes"].values())
        before = before if part else server.memory()
    grown = ", ".join(f"{one:.1f} -> {two:.1f}" for one, two in zip(before, server.memory(), strict=True))
    return f"Memory of the service's workers over {many:,} more requests, MB: {grown}."


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving_http", description="The service under load, beside others.")
    parser.add_argument("name", help="of a recommender that has a champion in mlruns (NIGHTLOOM_ROOT)")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load")
    parser.add_argument("--rounds", type=int, default=2, help="in which the servers take turns")
    parser.add_argument("--steady", type=float, default=0, help="seconds of requests over which memory is looked at, at the end")
    parser.add_argument("--table", type=Path, help="also write the page to this Markdown file")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
