"""How many events a second the service's store acknowledges, each client sending one after the other, and how long one waits.

    python -m benchmarks.serving_store [--clients 1 8 64] [--seconds 10] [--workers 1] [--folder DIR] [--postgres URL] [--table FILE]

An event counts when it is on the disk (SQLite in WAL mode, synchronous = FULL). Clients are threads that wait for their answer; with
`--workers 2` they are spread over two processes on one file. The sync column is what the disk does by itself, just before the row: 4 kB
written over and synced (fdatasync, as SQLite does). The lines on reading are one process alone. Close other work first, or take the load
average as it is told.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from nightloom.serving.store import Event, Store

RUN = uuid.uuid4().hex
"""Events of this run differ from those of one before in the same PostgreSQL."""
HEAD = [
    "clients",
    "workers",
    "acknowledged events a second",
    "p50, ms",
    "p99, ms",
    "longest, ms",
    "CPU ms an event",
    "sync p50 / p99, ms",
    "load average",
]


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the process's exit code."""
    given = parse(arguments)
    if given.child:
        return child(Path(given.folder), given.child, given.seconds, given.postgres)
    lines = []
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        lines += [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
        for workers in given.workers:
            for clients in given.clients:
                if clients >= workers:
                    row = measure(folder / f"{workers}-{clients}.db", clients, workers, given.seconds, given.postgres)
                    lines.append(f"| {' | '.join(row)} |")
                    print(lines[-1], flush=True)
        lines += ["", *reads(folder / "reads.db")]
        if given.postgres:
            lines.append(far(folder, given.postgres))
    said = [f"Python {platform.python_version()}, {os.cpu_count()} cores, {datetime.now(UTC):%Y-%m-%d}", "", *lines, ""]
    print("\n".join(said))
    if given.table:
        given.table.write_text("\n".join(said), encoding="utf-8")
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="on the disk that is measured")
    parser.add_argument("--postgres", help="address of PostgreSQL: what is acknowledged goes on there meanwhile")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def syncs(folder: Path) -> str:
    """Median and 99th percentile of 200 overwrites of 4 kB with fdatasync, in milliseconds."""
    found = []
    with (folder / "sync").open("wb", buffering=0) as file:
        for _ in range(200):
            began = time.perf_counter()
            file.seek(0)
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())
            found.append(1000 * (time.perf_counter() - began))
    return f"{np.median(found):.1f} / {np.percentile(found, 99):.1f}"


def child(path: Path, clients: int, seconds: float, postgres: str | None) -> int:
    """One worker: says the waits of all its events in milliseconds, and its CPU seconds, as JSON."""
    store = Store.open(path, postgres)
    waits: list[list[float]] = [[] for _ in range(clients)]
    barrier = threading.Barrier(clients + 1)
    ends = 0.0

    def send(client: int) -> None:
        barrier.wait()
        number = 0
        while time.perf_counter() < ends:
            event = Event(f"{os.getpid()}-{client}-{number}", f"u{client}", f"i{number % 1000}", "click", 1_700_000_000_000 + number)
            began = time.perf_counter()
            store.add_events([event])
            waits[client].append(1000 * (time.perf_counter() - began))
            number += 1

    threads = [threading.Thread(target=send, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    sys.stdin.readline()
    used = time.process_time()
    ends = time.perf_counter() + seconds
    barrier.wait()
    for thread in threads:
        thread.join()
    used = time.process_time() - used
    print(json.dumps({"waits": [round(one, 3) for client in waits for one in client], "cpu": used}), flush=True)
    store.close()
    return 0


def measure(path: Path, clients: int, workers: int, seconds: float, postgres: str | None) -> list[str]:
    """A row of the table."""
    disk = syncs(path.parent)
    command = [sys.executable, "-m", "benchmarks.serving_store", "--folder", str(path), "--seconds", str(seconds)]
    command += ["--postgres", postgres] if postgres else []
    shares = [clients // workers + (worker < clients % workers) for worker in range(workers)]
    running = [
        subprocess.Popen([*command, "--child", str(share)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for share in shares
    ]
    for process in running:
        assert process.stdout is not None  # noqa: S101  # for mypy alone
        process.stdout.readline()
    for process in running:
        assert process.stdin is not None  # noqa: S101  # for mypy alone
        process.stdin.write("go\n")
        process.stdin.flush()
    found = []
    for process in running:
        assert process.stdout is not None  # noqa: S101  # for mypy alone
        found.append(json.loads(process.stdout.readline()))
        process.wait()
    waits = np.array([one for said in found for one in said["waits"]])
    cpu = 1000 * sum(said["cpu"] for said in found) / len(waits)
    p50, p99 = np.percentile(waits, [50, 99])
    figures = [f"{len(waits) / seconds:,.0f}", f"{p50:.1f}", f"{p99:.1f}", f"{waits.max():.1f}", f"{cpu:.3f}"]
    return [str(clients), str(workers), *figures, disk, f"{os.getloadavg()[0]:.1f}"]


def reads(path: Path) -> list[str]:
    """What a request pays for looking at the store."""
    store = Store.open(path)
    view = store.view()
    store.add_events([Event(f"e{number}", f"u{number % 1000}", f"i{number % 700}", "click", number) for number in range(33_000)])
    list(view.changes())
    lines = []
    for name, ask in (
        ("nothing new", lambda _: view.changes()),
        ("history of 33 events", lambda number: view.history(f"u{number % 1000}", 200)),
    ):
        began, used = time.perf_counter(), time.process_time()
        for number in range(5_000):
            ask(number)
        wall, cpu = time.perf_counter() - began, time.process_time() - used
        lines.append(f"- {name}: {wall / 5_000 * 1e6:.1f} us, CPU {cpu / 5_000 * 1e6:.1f} us")
    store.close()
    return lines


def far(folder: Path, postgres: str) -> str:
    """How long an event takes to another machine, through PostgreSQL; two files stand for two machines."""
    for name in ("here", "there"):
        (folder / name).mkdir()
    here, there = (Store.open(folder / name / "far.db", postgres) for name in ("here", "there"))
    waits = []
    for number in range(200):
        time.sleep(0.013)  # no whole part of the machines' rhythm
        began, event = time.perf_counter(), Event(f"far-{RUN}-{number}", f"far-{RUN}-{number}", "i", "click", number)
        here.add_events([event])
        with closing(there.view()) as view:
            while not view.history(event.user_id, 1):
                time.sleep(0.002)
        waits.append(1000 * (time.perf_counter() - began))
    here.close()
    there.close()
    p50, p99 = np.percentile(waits, [50, 99])
    return f"- another machine has an event after: p50 {p50:.0f} ms, p99 {p99:.0f} ms, longest {max(waits):.0f} ms"


if __name__ == "__main__":
    sys.exit(main())
