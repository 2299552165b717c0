"""Workers of a service are killed (`kill -9`) while clients send events: nothing that was acknowledged is lost, and nothing is doubled.

    python -m benchmarks.serving_kills [--root mlruns] [--name movies-small] [--kills 50] [--clients 8]

The service runs on the champion with a store of its own. Clients send an event again until it is acknowledged, as a shop does, each with
an id of its own, and ask for a recommendation after it. A worker is killed as soon as two answer again.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from benchmarks.service_process import Running, champion_of, command_line, running
from benchmarks.serving_load import users_of
from nightloom.serving.model.artefact import Artefact

WORKERS = 2
START_SECONDS = 300.0
PAUSE = 0.05
"""Seconds between a client's events: a worker that starts learns from all of them, so that more would make it start later and later."""
FIRST = 1_900_000_000


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the process's exit code: 0 where nothing was lost or doubled."""
    parser = command_line(__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--clients", type=int, default=8)
    given = parser.parse_args(arguments)
    champion = champion_of(given.root, given.name)
    artefact, users = Artefact.open(champion.folder), users_of(champion)
    event = {"item_id": artefact.catalogue["item_id"][0], "event": artefact.event_names.default}
    done, numbers, acknowledged, became = threading.Event(), itertools.count(), list[str](), Counter[str]()

    def ask(service: Running) -> None:
        while not done.is_set():
            number = next(numbers)
            said = {"event_id": f"k{number}", "user_id": users[number % len(users)], "timestamp": FIRST + number}
            while not done.is_set():
                status = post(service, "/events", {"events": [said | event]})
                became[f"event: {status}"] += 1
                if status == "200":
                    acknowledged.append(f"k{number}")
                    break
            time.sleep(PAUSE)
            became[f"recommendation: {post(service, '/recommend', {'user_id': said['user_id']})}"] += 1

    with tempfile.TemporaryDirectory(prefix="nightloom-kills-") as scratch:
        home = Path(scratch)
        with running(home, champion, WORKERS) as service:
            clients = [threading.Thread(target=ask, args=(service,)) for _ in range(given.clients)]
            for one in clients:
                one.start()
            try:
                for _ in range(given.kills):
                    victim = random.choice(answering(service))
                    time.sleep(random.random() / 2)
                    os.kill(victim, signal.SIGKILL)
                    while psutil.pid_exists(victim):
                        time.sleep(0.01)
                answering(service)
            finally:
                done.set()
                for one in clients:
                    one.join()
        with contextlib.closing(sqlite3.connect(home / "shop.db")) as store:
            kept = Counter(name for (name,) in store.execute("SELECT event_id FROM events"))
    lost, doubled = set(acknowledged) - set(kept), [name for name, many in kept.items() if many > 1]
    print(f"{given.kills} kills, {len(acknowledged):,} events acknowledged: {len(lost)} lost, {len(doubled)} doubled; {dict(became)}")
    return 1 if lost or doubled else 0


def post(service: Running, path: str, body: dict[str, Any]) -> str:
    """The status of an answer, or what became of the request. It has a connection of its own, since that of a killed worker is gone."""
    connection = http.client.HTTPConnection(service.host, service.port, timeout=30)
    try:
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        return str(connection.getresponse().status)
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__
    finally:
        connection.close()


def answering(service: Running) -> list[int]:
    """The ids of the workers, once all of them listen."""
    ends = time.monotonic() + START_SECONDS
    while time.monotonic() < ends:
        with contextlib.suppress(psutil.NoSuchProcess):
            found = [
                one.pid
                for one in psutil.Process(service.process.pid).children(recursive=True)
                if any(link.status == psutil.CONN_LISTEN and link.laddr.port == service.port for link in one.net_connections())
            ]
            if len(found) == WORKERS:
                return found
        time.sleep(0.05)
    sys.exit(f"two workers do not answer: {service.log.read_text(errors='replace')[-2000:]}")


if __name__ == "__main__":
    sys.exit(main())
