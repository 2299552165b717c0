"""What a recommendation costs: the serving engine beside `Bundle.recommend` and the registered pyfunc, one request at a time.

    python -m benchmarks.quality --preset movies-small --seeds 7 --minutes 1      # trains the model, once
    python -m benchmarks.serving_engine --preset movies-small --seed 7 --minutes 1 [--table FILE]
    python -m benchmarks.serving_engine --preset movies-small --seed 7 --minutes 1 --items 100000    # and a large, made-up catalogue

All answer the same requests, in turn, one thread: histories of random items with times, the 20 best, seen items left out. CPU time is the
process's own, so other work on the machine counts little; wall times are medians. A service starts in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import quality
from nightloom.core.queries import Query
from nightloom.core.sequences import Histories
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.serving_artefact import write_serving
from nightloom.promotion.registry import Registry
from nightloom.serving.items.catalogue import LiveCatalogue
from nightloom.serving.model.engine import Engine
from nightloom.serving.model.members import Graph, Member, Popularity
from nightloom.serving.model.ranker import Ranker
from nightloom.serving.model.warm import warm

K, HISTORY, USERS, DAY = 20, 50, 500, 86_400
ROUNDS, EACH = 20, 20
"""Rounds in which the subjects take turns, and requests of each in a round."""
DEGREE, WIDTH = 200, 64
"""Edges of an item, and width of the vectors, of the made-up catalogue."""

COST = ("subject", "events", "CPU ms", "wall ms, median", "CPU, times the engine's")
START = ("subject", "start to first answer, s", "of it CPU, s", "memory, MB")

STARTED = """
import json, sys, time
began, cpu = time.perf_counter(), time.process_time()
from pathlib import Path
import psutil
{body}
used = psutil.Process().memory_info().rss / 1e6
print(json.dumps([time.perf_counter() - began, time.process_time() - cpu, used]))
"""
BODIES = {
    "engine": "from nightloom.serving.model.engine import Engine\nfrom nightloom.core.queries import Query\n"
    "engine = Engine.open(Path(sys.argv[1]))\nengine.recommend(Query(engine.item_ids[:50], list(range(50))), 20)",
    "Bundle.recommend": "from nightloom.packaging.bundle import Bundle\nfrom nightloom.core.queries import Query\n"
    "bundle = Bundle.load(Path(sys.argv[1]))\nbundle.recommend([Query(bundle.item_ids[:50].tolist(), list(range(50)))], 20)",
    "registered pyfunc": "import mlflow.pyfunc, pandas as pd\nmodel = mlflow.pyfunc.load_model(sys.argv[1])\n"
    "model.predict(pd.DataFrame({'history': [[str(one) for one in range(50)]]}), params={'k': 20})",
}


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the process's exit code."""
    given = parse(arguments)
    folder = bundle_of(given)
    with tempfile.TemporaryDirectory(prefix="nightloom-bench-") as scratch:
        serving, home = Path(scratch) / "serving", Path(scratch) / "mlruns"
        said = write_serving(folder, serving)
        warm(serving)
        model = registered(folder, home)
        rows = measure(folder, serving, model)
        places = {"engine": serving, "Bundle.recommend": folder, "registered pyfunc": model}
        starts = [started(name, place) for name, place in places.items()]
        size = sum(one["size"] for one in said.files.values()) / 1e6
    made_up = [made_up_row(items) for items in given.items]
    shape = f"d {said.model['dim']} x {said.model['blocks']}"
    scorers = ", ".join(f"{name} {weight:.2f}" for name, weight in said.weights.items()) or "none"
    text = "\n".join(
        [
            "# The serving engine beside the bundle",
            "",
            f"{given.preset}, {shape}; fusion weights: {scorers}; {'with' if said.reranker else 'without'} a re-ranker.",
            f"The artefact takes {size:.1f} MB. One request at a time, {ROUNDS * EACH} requests a subject, in turn; the {K} best.",
            "",
            *table(COST, rows),
            "",
            "A stored user was asked about before, so all keys and values but the last token's are kept.",
            "",
            *table(START, starts),
            "",
            "Kernels were compiled before (`nightloom.serving.model.warm`).",
            "",
            *([*table(("made-up items", "scored", "CPU ms"), made_up), ""] if made_up else []),
            f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({platform.machine()}), load average {os.getloadavg()[0]:.1f}. Command:",
            "",
            f"    python -m benchmarks.serving_engine {shlex.join(sys.argv[1:] if arguments is None else arguments)}",
            "",
        ]
    )
    print(text)
    if given.table:
        given.table.write_text(text, encoding="utf-8")
    return 0


def bundle_of(given: argparse.Namespace) -> Path:
    """The bundle that `benchmarks.quality` trained."""
    asked = ["--preset", given.preset, "--seeds", str(given.seed), *(["--minutes", f"{given.minutes:g}"] if given.minutes else [])]
    theirs = quality.parse(asked)
    config = quality.config_of(theirs, "full", given.seed)
    home = Path(os.environ.get("NIGHTLOOM_ROOT", "mlruns")) / "bench" / "quality" / config.name
    folder = quality.run_folder(home, theirs.protocol, "full", given.seed, config) / "bundle"
    if not folder.is_dir():
        sys.exit(f"{folder}: there is no model. First: python -m benchmarks.quality {shlex.join(asked)}")
    return folder


def registered(bundle: Path, home: Path) -> Path:
    """Register the bundle in a registry of its own; the folder of the logged model."""
    registry = Registry(home)
    run = registry.tracking.client.create_run(registry.tracking.experiment("bench")).info.run_id
    version = registry.register("bench", bundle, run, {}, "card", [Bundle.load(bundle).item_ids[:3].tolist()])
    uri = registry.client.get_model_version_download_uri(version.model, version.version)
    return Path(uri.removeprefix("file://"))


def measure(folder: Path, serving: Path, model: Path) -> list[tuple[str, ...]]:
    """Cost of a request by each subject."""
    import mlflow.pyfunc
    import pandas as pd

    bundle, pyfunc, random = Bundle.load(folder), mlflow.pyfunc.load_model(str(model)), np.random.default_rng(0)
    latest = bundle.clock.latest or 1_700_000_000
    queries = {events: [request(bundle, events, latest, random) for _ in range(USERS)] for events in (10, HISTORY, 199)}
    engine = Engine.open(serving, stored=lambda user: queries[HISTORY][int(user)], cache_bytes=1 << 30)
    for user in range(USERS):
        engine.recommend_user(str(user), K, now=latest)
    check_alike(engine, bundle, queries[HISTORY])
    frames = [pd.DataFrame({"history": [list(one.history)], "times": [list(one.times or [])]}) for one in queries[HISTORY]]

    def event_then_ask(number: int) -> None:
        item = engine.item_ids[int(random.integers(0, len(engine.item_ids)))]
        engine.apply(str(number), item, 0, latest + number, positive=True)
        engine.recommend_user(str(number), K, now=latest + number)

    subjects: dict[tuple[str, int], Callable[[int], Any]] = {
        ("engine, history sent", HISTORY): lambda number: engine.recommend(queries[HISTORY][number], K),
        ("engine, history sent", 10): lambda number: engine.recommend(queries[10][number], K),
        ("engine, history sent", 199): lambda number: engine.recommend(queries[199][number], K),
        ("engine, stored user", HISTORY): lambda number: engine.recommend_user(str(number), K, now=latest),
        ("engine, an event, then that user", HISTORY): event_then_ask,
        ("Bundle.recommend", HISTORY): lambda number: bundle.recommend([queries[HISTORY][number]], K),
        ("registered pyfunc", HISTORY): lambda number: pyfunc.predict(frames[number], params={"k": K}),
    }
    found = in_turn(subjects)
    unit = found["engine, history sent", HISTORY][0]
    return [
        (name, str(events), f"{1e3 * cpu:.3f}", f"{1e3 * wall:.3f}", f"{cpu / unit:.2f}") for (name, events), (cpu, wall) in found.items()
    ]


def request(bundle: Bundle, events: int, latest: int, random: np.random.Generator) -> Query:
    """A history of random items within the last hundred days."""
    items = bundle.item_ids[random.integers(0, len(bundle.item_ids), events)].tolist()
    return Query(items, np.sort(latest - random.integers(0, 100 * DAY, events)).tolist(), request_time=latest)


def check_alike(engine: Engine, bundle: Bundle, queries: list[Query]) -> None:
    """Stop where engine and bundle answer otherwise: a cost of wrong answers says nothing."""
    for query, wanted in zip(queries, bundle.recommend(queries, K), strict=True):
        items, scores = engine.recommend(query, K)
        if np.abs(scores - np.array([score for _, score in wanted])).max() > 1e-4:
            sys.exit(f"the engine gives {scores[:3]} for {[engine.item_ids[item] for item in items[:3]]}, the bundle {wanted[:3]}")


def in_turn(subjects: dict[tuple[str, int], Callable[[int], Any]]) -> dict[tuple[str, int], tuple[float, float]]:
    """CPU seconds a request, and the median of wall seconds, of each subject; they take turns."""
    cpu = dict.fromkeys(subjects, 0.0)
    walls: dict[tuple[str, int], list[float]] = {name: [] for name in subjects}
    for one in subjects.values():
        one(0)
    for number in range(ROUNDS):
        for name, one in subjects.items():
            began = time.process_time()
            for place in range(EACH):
                before = time.perf_counter()
                one((number * EACH + place) % USERS)
                walls[name].append(time.perf_counter() - before)
            cpu[name] += time.process_time() - began
    return {name: (cpu[name] / (ROUNDS * EACH), float(np.median(walls[name]))) for name in subjects}


def started(name: str, place: Path) -> tuple[str, ...]:
    """Start of a process until its first answer, and the memory that it takes then; the best of three."""
    runs = []
    for _ in range(3):
        code = STARTED.format(body=BODIES[name])
        done = subprocess.run([sys.executable, "-c", code, str(place)], capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    return name, *(f"{min(one):.{digits}f}" for one, digits in zip(zip(*runs, strict=True), (2, 2, 0), strict=True))


def made_up_row(n_items: int) -> tuple[str, ...]:
    """CPU time of ranking a made-up catalogue exactly: network, graph, popularity, the best 20 of what is not seen."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(n_items, WIDTH)).astype(np.float32)
    catalogue = LiveCatalogue([str(item) for item in range(n_items)], vectors, vectors.mean(0, dtype=np.float64), np.cov(vectors.T))
    counts = random.integers(1, 1000, n_items)
    edges = {
        "offsets": np.arange(n_items + 1, dtype=np.int64) * DEGREE,
        "targets": random.integers(0, n_items, n_items * DEGREE).astype(np.int32),
        "weights": random.random(n_items * DEGREE).astype(np.float32),
        "popularity": counts,
        "seen": counts,
    }
    settings = {"reach": 3, "decay": 0.7, "backward": 0.5, "recency": 0.7, "memory": 32}
    members: dict[str, Member] = {"graph": Graph(edges, settings), "popularity": Popularity(counts, np.zeros(len(counts), np.float32))}
    weights = {"graph": 0.2, "popularity": 0.1}
    ranker = Ranker(catalogue, members, weights, weights, None)
    asked = [Histories.of_items([random.integers(0, n_items, HISTORY).tolist()]) for _ in range(100)]
    users = random.normal(size=(100, WIDTH)).astype(np.float32)
    ranker.rank(asked[0], users[0], K, True, None, None)
    began = time.process_time()
    for histories, user in zip(asked, users, strict=True):
        ranker.rank(histories, user, K, True, None, None)
    return f"{n_items:,}", f"network d {WIDTH}, graph, popularity", f"{1e3 * (time.process_time() - began) / len(asked):.2f}"


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *rows)]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving_engine", description="Cost of a recommendation by the engine.")
    parser.add_argument("--preset", default="movies-small")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--minutes", type=float, help="as `benchmarks.quality` was told")
    parser.add_argument("--items", type=int, nargs="*", default=[], help="sizes of made-up catalogues that are ranked too")
    parser.add_argument("--table", type=Path, help="also write the page to this Markdown file")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
