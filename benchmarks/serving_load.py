"""A service under load: how many it answers, half of that while versions change, three times that, and its end.

    python -m benchmarks.serving_load [--root mlruns] [--name movies-small] [--workers 2] [--seconds 30] [--table FILE]

The service runs on the champion, its store in a folder of its own. Requests come from another process over plain sockets
(`benchmarks.load_generator`), for users of the champion's snapshot, 20 items each. Rates are of random moments: requests come whatever
became of those before, over any idle connection of up to 2,000, and wait from the moment they were due. Close other work first, or take
the load average as it is told: waits of a busy machine are those of the machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.service_process import Running, champion_of, command_line, running
from nightloom.client import Client
from nightloom.serving.model.artefact import Artefact
from nightloom.serving.settings import CHAMPION, Champion

HEAD = (
    "what",
    "sent a second",
    "answered",
    "told to come back",
    "other",
    "p50, ms",
    "p99, ms",
    "longest, ms",
    "sent late, p50 and p99, ms",
    "CPU ms each",
    "cores: service, generator",
    "load average",
)
CLIENTS, USERS = 8, 300
CHANGE_SECONDS = 5.0
"""How often the version changes in the half-load run."""


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the process's exit code: 0 where every promise was kept."""
    parser = command_line(__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--bulk", type=int, default=0, help="events to send in one request besides, such as 1000000")
    parser.add_argument("--apart", action="store_true", help="one worker on the first core, the load generator on the others")
    parser.add_argument("--table", type=Path)
    given = parser.parse_args(arguments)
    champion = champion_of(given.root, given.name)
    workers = 1 if given.apart else given.workers
    first = first_answer(given.root, given.name, workers)
    lines, kept = measure(champion, workers, given.seconds, apart=given.apart)
    lines += [f"- `nightloom serve`, from its start to its first answer at most 3 s: {first:.1f} s"]
    kept = kept and first <= 3
    if given.bulk:
        lines.append(bulk(champion, given.bulk))
    said = [
        f"{given.name}, {workers} workers, Python {platform.python_version()}, {os.cpu_count()} cores, {datetime.now(UTC):%Y-%m-%d}",
        "",
        *lines,
    ]
    print("\n".join(said))
    if given.table:
        given.table.write_text("\n".join(said) + "\n", encoding="utf-8")
    return 0 if kept else 1


def first_answer(root: Path, name: str, workers: int) -> float:
    """Seconds from the start of the command to the first recommendation, once the version is prepared."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "nightloom.cli", "serve", name, "--root", str(root), "--port", str(port), "--workers", str(workers)]
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/recommend", b'{"history": []}', {"content-type": "application/json"})
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(asked, timeout=30):
                return time.perf_counter() - began
            time.sleep(0.02)
        sys.exit(f"the service ended by itself, {process.returncode}: {' '.join(command)}")
    finally:
        process.terminate()
        process.wait(60)


def bulk(champion: Champion, many: int) -> str:
    """How fast one request of so many events is taken, how much memory the worker needs for it, that all are kept, and once."""
    users, first = users_of(champion), 1_900_000_000
    artefact = Artefact.open(champion.folder)
    items, name = list(artefact.catalogue["item_id"]), artefact.event_names.default
    random = np.random.default_rng(0)

    def events(count: int) -> Iterator[dict[str, Any]]:
        whom, what = random.integers(len(users), size=count), random.integers(len(items), size=count)
        for number, (user, item) in enumerate(zip(whom, what, strict=True)):
            said = {"event_id": f"b{number}", "user_id": f"{users[user]}-{number // 500}", "item_id": items[item]}
            yield said | {"event": name, "timestamp": first + number}

    with tempfile.TemporaryDirectory(prefix="nightloom-load-") as scratch, running(Path(scratch), champion) as service:
        with Client(service.address) as client:
            client.add_many_events(events(1_000))
            (worker,) = [one for one in psutil.Process(service.process.pid).children(recursive=True) if one.memory_info().rss > 50e6]
            before, seen, done = worker.memory_info().rss, list[int](), threading.Event()

            def watch() -> None:
                while not done.wait(0.2):
                    seen.append(worker.memory_info().rss)

            waits = list[float]()
            beside = [threading.Thread(target=watch), threading.Thread(target=ask, args=(service, users, done, waits))]
            for one in beside:
                one.start()
            began = time.perf_counter()
            said = client.add_many_events(events(many))
            seconds = time.perf_counter() - began
            done.set()
            for one in beside:
                one.join()
            used = sum(worker.cpu_times()[:2])
            again = client.add_many_events(events(many // 10))
        with contextlib.closing(sqlite3.connect(Path(scratch) / "shop.db")) as store:
            ((kept,),) = store.execute("SELECT count(*) FROM events")
    half, most = (max(part, default=before) - before for part in (seen[: len(seen) // 2], seen))
    counts = {name: said[name] for name in ("received", "stored", "duplicates", "refused")}
    return (
        f"- {many:,} events in one request: {many / seconds:,.0f} a second, {1000 * used / many:.2f} ms of CPU each, {counts}\n"
        f"- more memory, MB: {half / 1e6:,.0f} at half of them, {most / 1e6:,.0f} at the most\n"
        f"- {len(waits):,} recommendations meanwhile, ms: p50 {np.median(waits):.0f}, p99 {np.percentile(waits, 99):.0f}, "
        f"longest {max(waits):.0f}\n"
        f"- a tenth of them again: {again['stored']:,} stored; the store has {kept:,}"
    )


def ask(service: Running, users: list[str], done: threading.Event, waits: list[float]) -> None:
    """Ask for recommendations, one after the other, and note how many milliseconds each took."""
    with Client(service.address, timeout=60) as client:
        number = 0
        while not done.wait(0.05):
            began = time.perf_counter()
            client.recommend(users[number % len(users)], k=20)
            waits.append(1000 * (time.perf_counter() - began))
            number += 1


def measure(champion: Champion, workers: int, seconds: float, *, apart: bool = False) -> tuple[list[str], bool]:
    """The table, and whether every promise was kept.

    Args:
        champion: what is served.
        workers: how many processes answer.
        seconds: of each run.
        apart: whether the service has the first core and the load generator the others, so that neither waits for the other.
    """
    lines = [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    with tempfile.TemporaryDirectory(prefix="nightloom-load-") as scratch:
        home = Path(scratch)
        asked = [json.dumps({"user_id": user, "k": 20}) for user in users_of(champion)]
        (home / "bodies").write_text("\n".join(asked), encoding="utf-8")
        cores = os.sched_getaffinity(0)
        with contextlib.ExitStack() as stack:
            stack.callback(os.sched_setaffinity, 0, cores)
            if apart:
                os.sched_setaffinity(0, {min(cores)})
            service = stack.enter_context(running(home, champion, workers))
            if apart:
                os.sched_setaffinity(0, cores - {min(cores)})
            first = load(service, 3.0, clients=CLIENTS)
            most = load(service, seconds, clients=CLIENTS)
            capacity = most["outcomes"]["200"] / most["seconds"]
            half = load(service, seconds, rate=capacity / 2)
            stop, changes = threading.Event(), list[float]()
            changing = threading.Thread(target=change, args=(home, champion, stop, changes))
            changing.start()
            swapped = load(service, seconds, rate=capacity / 2)
            stop.set()
            changing.join()
            time.sleep(CHANGE_SECONDS)  # until the last of them is open
            three = load(service, seconds, rate=3 * capacity)
            ended, exit_code = end(service, capacity / 2)
        answered, got = answered_by(home), sum(one["outcomes"].get("200", 0) for one in (first, most, half, swapped, three, ended))
    runs = [
        (f"{CLIENTS} clients, one request after the other", most),
        ("half load", half),
        (f"half load, {len(changes)} changes of version", swapped),
        ("three times the load", three),
        ("half load, and SIGTERM", ended),
    ]
    lines += [f"| {' | '.join([what, *row(found)])} |" for what, found in runs]
    promises = {
        "half load while versions change: every request is answered": set(swapped["outcomes"]) == {"200"},
        "half load while versions change: p99 at most 3 times that without": p99(swapped) <= 3 * p99(half),
        "three times the load: p99 of the answered at most 50 ms": p99(three) <= 50,
        "three times the load: the rest is told when to come back": set(three["outcomes"]) <= {"200", "429 with retry-after"},
        f"SIGTERM: what was taken is answered ({answered:,} by the service, {got:,} came)": answered == got and exit_code == 0,
    }
    lines += ["", *(f"- {what}: {'yes' if held else 'NO'}" for what, held in promises.items())]
    return lines, all(promises.values())


def users_of(champion: Champion) -> list[str]:
    """Some users of the champion's snapshot; made-up ones where it is not here."""
    if champion.snapshot is None:
        return [f"u{number}" for number in range(USERS)]
    import pandas as pd

    known = pd.read_parquet(champion.snapshot / "events.parquet", columns=["user_id"])["user_id"].unique()
    return [str(one) for one in np.random.default_rng(0).permutation(known)[:USERS] if not set(str(one)) & set(" \n\t")]


def start(service: Running, seconds: float, **how: float) -> subprocess.Popen[str]:
    """The load generator, under way."""
    command = [sys.executable, "-m", "benchmarks.load_generator", str(service.port), str(seconds), "--bodies", str(service.home / "bodies")]
    command += [part for name, value in how.items() for part in (f"--{name}", str(value))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def load(service: Running, seconds: float, **how: float) -> dict[str, Any]:
    """What became of the requests of one run, and the processor's time that the service took."""
    before = cpu(service)
    said = start(service, seconds, **how).communicate()[0]
    found: dict[str, Any] = json.loads(said)
    return found | {"service_cpu": cpu(service) - before, "load": os.getloadavg()[0]}


def cpu(service: Running) -> float:
    """Seconds of the processor that the workers have used."""
    return sum(sum(one.cpu_times()[:2]) for one in psutil.Process(service.process.pid).children(recursive=True))


def change(home: Path, champion: Champion, stop: threading.Event, changes: list[float]) -> None:
    """Name another version again and again, whose files are the same: it is opened and learns from the store as any other."""
    while not stop.wait(CHANGE_SECONDS):
        changes.append(time.time())
        replace(champion, version=str(int(champion.version) + len(changes))).write(home / CHAMPION)


def end(service: Running, rate: float) -> tuple[dict[str, Any], int]:
    """What became of requests while the service was told to end, and its exit code."""
    under_way = start(service, 4.0, rate=rate)
    time.sleep(2.0)
    service.process.send_signal(signal.SIGTERM)
    exit_code = service.process.wait(60)
    found: dict[str, Any] = json.loads(under_way.communicate()[0])
    return found | {"service_cpu": float("nan"), "load": os.getloadavg()[0]}, exit_code


def answered_by(home: Path) -> int:
    """Recommendations that the workers say they have answered, after their end."""
    states = [json.loads(path.read_text(encoding="utf-8")) for path in home.glob("metrics-*.json")]
    return sum(state["requests"].get('method="POST",path="/recommend",status="200"', 0) for state in states)


def p99(found: dict[str, Any]) -> float:
    return float(np.percentile(found["waits"] or [np.nan], 99))


def row(found: dict[str, Any]) -> Sequence[str]:
    outcomes, waits = Counter(found["outcomes"]), found["waits"] or [np.nan]
    sent = sum(outcomes.values())
    others = {name: many for name, many in outcomes.items() if name not in ("200", "429 with retry-after")}
    return (
        f"{sent / found['seconds']:,.0f}",
        f"{outcomes['200']:,} ({outcomes['200'] / found['seconds']:,.0f} a second)",
        f"{outcomes['429 with retry-after']:,}",
        ", ".join(f"{name}: {many:,}" for name, many in others.items()) or "0",
        f"{np.median(waits):.1f}",
        f"{np.percentile(waits, 99):.1f}",
        f"{max(waits):.1f}",
        ", ".join(f"{one:.1f}" for one in np.percentile(found["late"], [50, 99])) if found["late"] else "",
        "" if np.isnan(found["service_cpu"]) else f"{1000 * found['service_cpu'] / max(outcomes['200'], 1):.2f}",
        "" if np.isnan(found["service_cpu"]) else ", ".join(f"{found[one] / found['seconds']:.2f}" for one in ("service_cpu", "cpu")),
        f"{found['load']:.1f}",
    )


if __name__ == "__main__":
    sys.exit(main())
