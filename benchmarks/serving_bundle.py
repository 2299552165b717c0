"""How many recommendations a second the service answers from any trained bundle, in single precision and in int8.

    python -m benchmarks.quality --preset movies --protocol temporal --seeds 7
    python -m benchmarks.serving_bundle mlruns/bench/quality/movies/temporal/full-*/bundle mlruns/snapshots/movies/* [--table FILE]

Asked for are users of the snapshot, by their id and by their histories, sent with the times of their events. The two services run at once
and take turns. CPU is that of the workers, a request; the load generator's is told besides, since it shares the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.service_process import Running, running
from benchmarks.serving_engine import table
from benchmarks.serving_http import load
from benchmarks.serving_load import cpu
from nightloom.packaging.serving_artefact import write_serving
from nightloom.serving.model.artefact import Artefact
from nightloom.serving.settings import Champion

HEAD = ("weights", "asked", "recommendations a second", "CPU ms each", "p50 ms", "p99 ms", "generator, cores")
PRECISIONS = ("single", "int8")
USERS, LONGEST, K, CLIENTS, WORKERS, WARM = 2_000, 200, 20, 8, 2, 3


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the process's exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("snapshot", type=Path, help="that it was trained on")
    parser.add_argument("--users", type=int, default=USERS, help="different users that are asked for")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--table", type=Path, help="also write the page to this Markdown file")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="nightloom-bench-") as scratch, contextlib.ExitStack() as open_ones:
        home, services = Path(scratch), dict[str, Running]()
        for precision in PRECISIONS:
            folder, place = home / precision / "artefact", home / precision / "service"
            place.mkdir(parents=True)
            write_serving(given.bundle, folder, sequence={"encoder": precision, "vectors": precision})
            champion = Champion("bench", "1", folder, given.snapshot.resolve())
            services[precision] = open_ones.enter_context(running(place, champion, WORKERS))
        model = Artefact.open(home / PRECISIONS[0] / "artefact").manifest.model
        events = bodies(given.snapshot, home, given.users)
        rows = in_turn(services, home, given)
    said = shlex.join(sys.argv[1:] if arguments is None else arguments)
    text = "\n".join(
        [
            "# The service with a wider model",
            "",
            f"A trained model, d {model['dim']} x {model['blocks']}, {WORKERS} workers, {CLIENTS} clients, the {K} best.",
            f"{given.users:,} users of the snapshot with {events:.0f} events on average, the latest {LONGEST} of each.",
            "",
            *table(HEAD, rows),
            "",
            f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, the load generator on them too; load average {os.getloadavg()[0]:.1f}.",
            "Command:",
            "",
            f"    python -m benchmarks.serving_bundle {said}",
            "",
        ]
    )
    print(text)
    if given.table:
        given.table.write_text(text, encoding="utf-8")
    return 0


def bodies(snapshot: Path, home: Path, many: int) -> float:
    """Write requests for users and for their histories, a line each; how many events a history has on average."""
    events = pd.read_parquet(snapshot / "events.parquet", columns=["user_id", "item_id", "timestamp"])
    users = np.random.default_rng(0).permutation(events["user_id"].unique())[:many]
    events = events[events["user_id"].isin(users)].sort_values("timestamp", kind="stable")
    seconds = events["timestamp"].astype("datetime64[s, UTC]").astype("int64")
    own, theirs, lengths = [], [], []
    for user, part in events.assign(second=seconds).groupby("user_id"):
        last = part.tail(LONGEST)
        own.append(json.dumps({"user_id": str(user), "k": K}))
        theirs.append(json.dumps({"history": last["item_id"].astype(str).tolist(), "times": last["second"].tolist(), "k": K}))
        lengths.append(len(last))
    for name, lines in (("users", own), ("histories", theirs)):
        (home / name).write_text("\n".join(lines), encoding="utf-8")
    return float(np.mean(lengths))


def in_turn(services: dict[str, Running], home: Path, given: argparse.Namespace) -> list[tuple[str, ...]]:
    """Rate and CPU of each, the best round's, since other work only takes away."""
    asked = {"a stored user": "users", "the history": "histories"}
    best: dict[tuple[str, str], tuple[float, float, dict[str, Any]]] = {}
    for number in range(given.rounds + 1):  # the first, a longer one, fills the cache of users
        for precision, service in services.items():
            for name, file in asked.items():
                before = cpu(service)
                found = load(service.port, "/recommend", home / file, CLIENTS, given.seconds * (1 if number else WARM))
                if set(found["outcomes"]) != {"200"}:
                    sys.exit(f"{precision}, {name}: answers were {found['outcomes']}")
                many = found["outcomes"]["200"]
                one = (many / found["seconds"], 1000 * (cpu(service) - before) / many, found)
                if number and one[0] > best.get((precision, name), (0.0,))[0]:
                    best[precision, name] = one
    return [
        (
            *which,
            f"{rate:,.0f}",
            f"{each:.3f}",
            *(f"{one:.1f}" for one in np.percentile(found["waits"], [50, 99])),
            f"{found['cpu'] / found['seconds']:.2f}",
        )
        for which, (rate, each, found) in best.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
