"""How many recommendations a second the service answers, and what one costs, beside MLflow's scoring server and FastAPI with the pyfunc.

    python -m flows.nightly --preset movies-small
    python -m benchmarks.serving_http movies-small [--seconds 10] [--rounds 2] [--steady 200000] [--table FILE]

All serve the same champion with as many workers, one after the other in turn, so that other work on the machine hits all. The load
generator is a process of its own (`benchmarks.http_load`). CPU is that of the server's processes, divided by its answers. Requests:
histories of random items with times within the last hundred days, and users of the snapshot by their id. Afterwards the service alone:
half of its own rate for the latency, three times that for what it does when it is asked too much, and its memory over many requests.
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

from nightloom.promotion.registry import Registry
from nightloom.serving.engine import Engine

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
ALONE = ("load", "sent a second", "answered 200", "answered 429", "other", "p50 ms of 200", "p99 ms of 200", "longest")


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
    registry = Registry(root)
    champion = registry.champion(given.name)
    if champion is None:
        sys.exit(f"{given.name}: no champion in {root}. First: python -m flows.nightly --preset {given.name}")
    uri = registry.client.get_model_version_download_uri(champion.model, champion.version).removeprefix("file://")
    with tempfile.TemporaryDirectory(prefix="nightloom-bench-") as scratch:
        home = Path(scratch)
        bodies = write_bodies(Engine.open(registry.fetch_serving(champion, root / "cache")), snapshot_users(root, given.name), home)
        service = [
            sys.executable,
            "-m",
            "nightloom.cli",
            "serve",
            given.name,
            "--root",
            str(root),
            "--workers",
            str(WORKERS),
            "--no-access-log",
        ]
        (home / "pyfunc_app.py").write_text(PYFUNC_APP.format(uri=uri), encoding="utf-8")
        granian = [
            sys.executable,
            "-m",
            "granian",
            "pyfunc_app:app",
            "--interface",
            "asgi",
            "--workers",
            str(WORKERS),
            "--working-dir",
            str(home),
        ]
        mlflow = [sys.executable, "-m", "mlflow", "models", "serve", "-m", uri, "--env-manager", "local", "--workers", str(WORKERS)]
        with (
            started("nightloom serve", service, "/readyz", home) as ours,
            started("FastAPI + pyfunc", granian, "/ping", home) as fastapi,
            started("MLflow's server", mlflow, "/ping", home) as scoring,
        ):
            subjects = {
                ("nightloom serve", f"a history of {HISTORY} events"): (ours, "/recommend", bodies / "history.jsonl"),
                ("nightloom serve", "a stored user"): (ours, "/recommend", bodies / "users.jsonl"),
                ("FastAPI + pyfunc", f"a history of {HISTORY} events"): (fastapi, "/recommend", bodies / "history.jsonl"),
                ("MLflow's server", f"a history of {HISTORY} events"): (scoring, "/invocations", bodies / "invocations.jsonl"),
            }
            speed = in_turn(subjects, given)
        with started("nightloom serve", service, "/readyz", home) as ours:
            alone, memory = by_itself(ours, bodies / "history.jsonl", given)
    load = os.getloadavg()[0]
    text = "\n".join(
        [
            "# The service under load",
            "",
            f"{given.name}, {WORKERS} workers, {given.clients} clients with kept connections, the {K} best; the same champion everywhere.",
            "",
            *table(SPEED, speed),
            "",
            "The service by itself; requests are due at even times whether it keeps up or not, and wait from then on:",
            "",
            *table(ALONE, alone),
            "",
            *memory,
            f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({platform.machine()}), the load generator on them too; load average",
            f"{load:.1f}. Command:",
            "",
            f"    python -m benchmarks.serving_http {shlex.join(sys.argv[1:] if arguments is None else arguments)}",
            "",
        ]
    )
    print(text)
    if given.table:
        given.table.write_text(text, encoding="utf-8")
    return 0


def snapshot_users(root: Path, name: str) -> list[str]:
    """Users that the store knows from the champion's snapshot."""
    import pyarrow.parquet as pq

    parts = sorted((root / "snapshots" / name).glob("*/events*.parquet"), key=lambda one: one.stat().st_mtime)
    users = pq.read_table(parts[-1], columns=["user_id"])["user_id"].unique().to_pylist()
    return [str(one) for one in users[:USERS]]


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
        for one in server.all():
            with contextlib.suppress(psutil.NoSuchProcess):
                one.terminate()
        process.wait(60)


def answers(address: str) -> bool:
    """Whether a GET is answered by 200."""
    try:
        with urllib.request.urlopen(address, timeout=5) as found:
            return bool(found.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def load(port: int, path: str, bodies: Path, clients: int, **limits: float | None) -> dict[str, Any]:
    """What the generator says; see `benchmarks.http_load`."""
    command = [sys.executable, "-m", "benchmarks.http_load", "--port", str(port), "--path", path, "--bodies", str(bodies)]
    command += ["--clients", str(clients)]
    for name, value in limits.items():
        command += [] if value is None else [f"--{name}", str(value)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def in_turn(subjects: dict[tuple[str, str], tuple[Server, str, Path]], given: argparse.Namespace) -> list[tuple[str, ...]]:
    """Rate and CPU of each subject, in rounds; the best round's rate, since others only take time away, and the least CPU."""
    best: dict[tuple[str, str], tuple[float, float, dict[str, float]]] = {}
    for server, path, bodies in subjects.values():
        load(server.port, path, bodies, given.clients, seconds=2)
    for _ in range(given.rounds):
        for name, (server, path, bodies) in subjects.items():
            before = server.cpu()
            found = load(server.port, path, bodies, given.clients, seconds=given.seconds)
            if set(found["statuses"]) != {"200"}:
                sys.exit(f"{name}: answers were {found['statuses']}")
            one = (found["a_second"], (server.cpu() - before) / found["requests"] * 1000, found["ms_200"])
            former = best.get(name, (0.0, np.inf, one[2]))
            best[name] = (max(one[0], former[0]), min(one[1], former[1]), one[2] if one[0] > former[0] else former[2])
    unit = next(iter(best.values()))[1]
    return [
        (*name, f"{rate:,.0f}", f"{cpu:.3f}", f"{cpu / unit:.1f}", f"{waits['p50']:.1f}", f"{waits['p99']:.1f}")
        for name, (rate, cpu, waits) in best.items()
    ]


def by_itself(server: Server, bodies: Path, given: argparse.Namespace) -> tuple[list[tuple[str, ...]], list[str]]:
    """Rows of the service at half and at three times what it can, and lines about its memory."""
    load(server.port, "/recommend", bodies, given.clients, seconds=2)
    most = load(server.port, "/recommend", bodies, given.clients, seconds=given.seconds)["a_second"]
    rows = []
    for words, share, clients in (("half of what it can", 0.5, given.clients), ("three times what it can", 3.0, 400)):
        found = load(server.port, "/recommend", bodies, clients, seconds=given.seconds, rate=share * most)
        counts = found["statuses"]
        accepted, refused, waits = counts.get("200", 0), counts.get("429", 0), found["ms_200"]
        other = found["requests"] - accepted - refused
        sent = found["requests"] / found["seconds"]
        rows.append((words, f"{sent:,.0f}", f"{accepted:,}", f"{refused:,}", f"{other:,}", *(f"{waits[one]:.1f}" for one in waits)))
    if not given.steady:
        return rows, []
    load(server.port, "/recommend", bodies, given.clients, seconds=3600, most=given.steady // 10)
    before = server.memory()
    load(server.port, "/recommend", bodies, given.clients, seconds=3600, most=given.steady)
    after = server.memory()
    grown = ", ".join(f"{one:.1f} -> {two:.1f}" for one, two in zip(before, after, strict=True))
    return rows, [f"Memory of the workers over {given.steady:,} more requests, MB: {grown}.", ""]


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *rows)]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving_http", description="The service under load, beside others.")
    parser.add_argument("name", help="of a recommender that has a champion in mlruns (NIGHTLOOM_ROOT)")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load")
    parser.add_argument("--rounds", type=int, default=2, help="in which the servers take turns")
    parser.add_argument("--steady", type=int, default=0, help="requests over which memory is looked at, at the end")
    parser.add_argument("--table", type=Path, help="also write the page to this Markdown file")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
