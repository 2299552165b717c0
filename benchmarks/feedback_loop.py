"""The feedback loop over some simulated days: people click what a running service shows them, and each night learns from their day.

    python -m benchmarks.feedback_loop [--days 5] [--folder DIR] [--plot FILE] [--table FILE]

Three services answer the same people. One follows the nights: its store is in the next night's snapshot, and it changes over to the
model that is promoted. One learns by day alone and stays with the first night's model. One is told nothing. Nights, services and their
stores are real; people are made up. Each likes items by their genre, comes three times a day, looks down a list of ten and clicks, hardly
ever on the same item again. Every day new items are put. On the third day a third of the people come to like another genre. What is
measured is how likely a person clicks on an item that is shown, which nobody but this script knows.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nightloom.client import Client

GENRES = {
    "space": ("Star", "Orbit", "Comet", "Galaxy", "Rocket"),
    "western": ("Sheriff", "Canyon", "Saddle", "Prairie", "Outlaw"),
    "romance": ("Kiss", "Letter", "Wedding", "Paris", "Heart"),
    "crime": ("Detective", "Alibi", "Heist", "Evidence", "Witness"),
    "nature": ("Forest", "River", "Whale", "Glacier", "Savanna"),
}
PEOPLE, ITEMS, NEW_A_DAY, VISITS, SHOWN, BEFORE = 60, 500, 15, 3, 10, 6
"""People; items of the catalogue; items that come each day; visits a day; items of a list; events of a person before the first night."""
DRIFT_DAY, DRIFTING = 3, 3
"""The day on which every third person comes to like another genre."""
LOOKS_ON = 0.9
"""How likely a person looks at the next item of a list."""
AGAIN = 0.1
"""How much of a person's interest is left in an item that was clicked before."""
DAY = 86_400
CONFIG = """
name: loop
data:
  events: events.csv
  items: items.csv
  features: {title: text, genre: category}
model: {dim: 32, blocks: 1, heads: 2}
training: {epochs: 12, workers: 1, learning_rate: 0.003}
evaluation: {protocols: [temporal], baselines: [popularity]}
explain: {users: 1, max_events: 3, samples: 16}
promotion: {must_beat_baselines: false, margin: 0.9, resamples: 100}
"""
ARMS = {"nights and days": "#3f4fb5", "days alone": "#c2571a", "neither": "#777777"}


@dataclass
class World:
    """People and items, as nobody but this script knows them."""

    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))
    taste: NDArray[np.float64] = field(init=False)
    genre: dict[str, int] = field(default_factory=dict)
    appeal: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.taste = np.full((PEOPLE, len(GENRES)), 0.04)
        for person in range(PEOPLE):
            first, second = self.random.permutation(len(GENRES))[:2]
            self.taste[person, first], self.taste[person, second] = 0.6, 0.25

    def new_items(self, many: int) -> list[dict[str, str]]:
        made = []
        for _ in range(many):
            name, genre = f"i{len(self.genre):03d}", int(self.random.integers(len(GENRES)))
            words = list(GENRES.values())[genre]
            self.genre[name], self.appeal[name] = genre, float(self.random.uniform(0.5, 1.3))
            title = f"{words[self.random.integers(5)]} {words[self.random.integers(5)]} {name[1:]}"
            made.append({"item_id": name, "title": title, "genre": list(GENRES)[genre]})
        return made

    def drift(self) -> None:
        for person in range(0, PEOPLE, DRIFTING):
            self.taste[person] = np.roll(self.taste[person], 1 + person % (len(GENRES) - 1))

    def likes(self, person: int, item: str) -> float:
        """How likely the person clicks on the item once it is seen."""
        return min(float(self.taste[person, self.genre[item]]) * self.appeal[item], 1.0)


@dataclass
class Arm:
    """One service, and what it was told."""

    name: str
    client: Client
    shown: list[float] = field(default_factory=list)
    clicked: set[tuple[int, str]] = field(default_factory=set)

    def visit(self, world: World, moment: int, dice: NDArray[np.float64], number: int) -> None:
        """All people come once; those who click tell the service, where it is to be told."""
        liked, events = [], []
        for person in range(PEOPLE):
            answer = self.client.recommend(f"p{person}", k=SHOWN, now=moment + person)
            chances = [
                world.likes(person, item.item_id) * (AGAIN if (person, item.item_id) in self.clicked else 1) for item in answer.items
            ]
            liked.append(float(np.mean(chances)))
            for place, (item, chance) in enumerate(zip(answer.items, chances, strict=True)):
                looks, clicks = dice[person, place]
                if looks > LOOKS_ON:
                    break
                if clicks < chance:
                    self.clicked.add((person, item.item_id))
                    said = {"event_id": f"v{number}-{person}-{place}", "user_id": f"p{person}", "item_id": item.item_id}
                    events.append(said | {"event": "click", "timestamp": moment + person})
        self.shown.append(float(np.mean(liked)))
        if self.name != "neither" and events:
            self.client.add_events(events)


def main(arguments: list[str] | None = None) -> int:
    """Run the simulation; returns the process's exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where nights and stores are kept; by default nowhere")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--table", type=Path)
    given = parser.parse_args(arguments)
    with contextlib.ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nightloom-loop-")))
        found = simulate(folder, given.days)
    said = table(found, given.days)
    print(said)
    if given.table:
        given.table.write_text(said, encoding="utf-8")
    if given.plot:
        draw(found, given.days, given.plot)
    return 0


def simulate(folder: Path, days: int) -> dict[str, list[float]]:
    """Service -> how likely people click on what it shows, a figure a visit.

    Args:
        folder: for nights and stores.
        days: how many.
    """
    world, start = World(), int(time.time()) // DAY * DAY - (days + 1) * DAY
    write_past(world, folder, start)
    night(folder)
    roots = {name: folder / name.replace(" ", "-") for name in ARMS}
    for root in list(roots.values())[1:]:
        shutil.copytree(folder / "mlruns", root / "mlruns", symlinks=True)
    roots["nights and days"] = folder
    with contextlib.ExitStack() as stack:
        arms = [Arm(name, stack.enter_context(served(root))) for name, root in roots.items()]
        for day in range(days):
            if day + 1 == DRIFT_DAY:
                world.drift()
            for item in world.new_items(NEW_A_DAY):
                for arm in arms:
                    arm.client.put_item(item["item_id"], {name: item[name] for name in ("title", "genre")})
            for visit in range(VISITS):
                moment, dice = start + day * DAY + (visit + 1) * DAY // 4, world.random.random((PEOPLE, SHOWN, 2))
                for arm in arms:
                    arm.visit(world, moment, dice, day * VISITS + visit)
            print(f"day {day + 1}:", {arm.name: round(float(np.mean(arm.shown[-VISITS:])), 3) for arm in arms}, flush=True)
            if day + 1 < days:
                version = night(folder)
                until_version(arms[0].client, version)
        return {arm.name: arm.shown for arm in arms}


def write_past(world: World, folder: Path, start: int) -> None:
    """Tables of before the first night: what people did with items that they met by chance."""
    pd.DataFrame(world.new_items(ITEMS)).to_csv(folder / "items.csv", index=False)
    rows, names = [], np.array(list(world.genre))
    for person in range(PEOPLE):
        met = world.random.permutation(names)
        chosen = [item for item in met if world.random.random() < world.likes(person, item)][:BEFORE]
        times = start - np.sort(world.random.integers(DAY, 20 * DAY, len(chosen)))[::-1]
        rows += [(f"p{person}", item, int(at), "click") for item, at in zip(chosen, times, strict=True)]
    pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "event"]).to_csv(folder / "events.csv", index=False)
    (folder / "loop.yaml").write_text(CONFIG, encoding="utf-8")


def night(folder: Path) -> str:
    """Run a night; the number of the version that is champion afterwards."""
    environment = os.environ | {"PREFECT_HOME": str(folder / "prefect"), "NIGHTLOOM_ROOT": str(folder / "mlruns")}
    environment["PYTHONPATH"] = os.pathsep.join([os.getcwd(), os.path.join(os.getcwd(), "src")])
    environment["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] = "300"  # a busy machine is no fault
    command = [sys.executable, "-m", "flows.nightly", "--config", "loop.yaml"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout[-3000:] + done.stderr[-3000:])
    report = json.loads((folder / "mlruns" / "nights" / "loop" / "latest" / "report.json").read_text(encoding="utf-8"))
    print(f"night: {report['gate']['decision']}, champion {report['versions']['champion']}", flush=True)
    return str(report["versions"]["champion"])


@contextlib.contextmanager
def served(root: Path) -> Iterator[Client]:
    """A client of a service on a folder's champion."""
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "nightloom.cli",
        "serve",
        "loop",
        "--root",
        str(root / "mlruns"),
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    with (root / "service.log").open("wb") as log:
        process = subprocess.Popen([*command, "--no-access-log"], stdout=log, stderr=log)
    try:
        with Client(f"http://127.0.0.1:{port}", timeout=60) as client:
            while not client.ready():
                if process.poll() is not None:
                    sys.exit((root / "service.log").read_text(encoding="utf-8"))
                time.sleep(0.2)
            yield client
    finally:
        process.terminate()
        process.wait(60)


def until_version(client: Client, version: str) -> None:
    ends = time.monotonic() + 120
    while client.recommend("p0").version != version:
        if time.monotonic() > ends:
            sys.exit(f"the service has not changed over to version {version}")
        time.sleep(0.2)


def table(found: dict[str, list[float]], days: int) -> str:
    """Mean of each day, Markdown."""
    head = ["how likely a shown item is clicked", *(f"day {day + 1}" for day in range(days))]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for name, shown in found.items():
        means = np.array(shown).reshape(days, VISITS).mean(1)
        lines.append(f"| {name} | {' | '.join(f'{one:.3f}' for one in means)} |")
    return "\n".join([f"{PEOPLE} people, {ITEMS} items and {NEW_A_DAY} new ones a day, {datetime.now(UTC):%Y-%m-%d}", "", *lines, ""])


def draw(found: dict[str, list[float]], days: int, path: Path) -> None:
    """The plot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    at = np.concatenate([day + (np.arange(VISITS) + 1) / (VISITS + 1) for day in range(days)])
    for name, shown in found.items():
        axis.plot(at, shown, color=ARMS[name], marker="o", markersize=4, linewidth=2)
        axis.annotate(name, (at[-1], shown[-1]), xytext=(8, 0), textcoords="offset points", color=ARMS[name], va="center")
    for border in range(1, days):
        axis.axvline(border, color="#8888", linewidth=1)
    axis.annotate("a night", (1, axis.get_ylim()[0]), xytext=(4, 6), textcoords="offset points", color="#666", fontsize=9)
    top = axis.get_ylim()[1]
    axis.annotate("a third change their taste", (DRIFT_DAY - 1, top), xytext=(4, -12), textcoords="offset points", color="#666", fontsize=9)
    axis.set(xlim=(0, days + 1.1), xticks=np.arange(days) + 0.5, xticklabels=[f"day {day + 1}" for day in range(days)])
    axis.set_ylabel("how likely a shown item is clicked")
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    sys.exit(main())
