"""A night's training and evaluation over a million items: CPU seconds, and the memory that its processes hold together.

    python -m benchmarks.many_items [--items 1000000] [--workers 2] [--write benchmarks/many_items.md]

Tables and text vectors are made here from a seed; nothing is encoded. Texts come in groups, a user keeps to some groups. Memory is
proportional set size (PSS): what processes share, such as mapped vectors, counts once. Evaluation is the stage as a night runs it, with
its baselines. Neighbours by text are compared with all products for some items.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import torch

from benchmarks.validate_million import conditions
from nightloom.config import RunConfig, config_from_dict
from nightloom.core.top_k import top_k
from nightloom.data.collect import collect
from nightloom.data.preparation.prepare import prepare
from nightloom.data.tables.snapshot import read_snapshot
from nightloom.evaluation.evaluate import evaluate
from nightloom.models.scorers.text_neighbours import TextNeighbours
from nightloom.packaging.bundle import Bundle
from nightloom.training.fine_tune import fine_tune

SEED = 20
TEXT_DIM = 384
EVENTS_AN_ITEM = 2
EVENTS_A_USER = 50


def write_tables(folder: Path, n_items: int) -> None:
    """Write `events.parquet`, `items.parquet` and the text vectors of the items, row i for `item-i`."""
    rng = np.random.default_rng(SEED)
    n_events = EVENTS_AN_ITEM * n_items
    groups, group_of = max(n_items // 200, 2), np.arange(n_items) % max(n_items // 200, 2)
    centres = rng.standard_normal((groups, TEXT_DIM)).astype(np.float32)
    vectors = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (n_items, TEXT_DIM))
    for first in range(0, n_items, 100_000):
        rows = slice(first, min(first + 100_000, n_items))
        vectors[rows] = centres[group_of[rows]] + rng.standard_normal((rows.stop - first, TEXT_DIM)).astype(np.float32)
    ids = np.char.add("item-", np.arange(n_items).astype(str))
    titles = np.char.add("Thing ", np.arange(n_items).astype(str))
    pd.DataFrame({"item_id": ids, "title": titles}).to_parquet(folder / "items.parquet")
    user = rng.integers(0, n_events // EVENTS_A_USER, n_events)
    own = (user * 7919 + rng.integers(0, 3, n_events)) % groups  # three groups a user
    item = own + groups * np.minimum((n_items // groups * rng.random(n_events) ** 2).astype(np.int64), n_items // groups - 1)
    when = pd.to_datetime(1_750_000_000 + rng.integers(0, 90 * 86400, n_events), unit="s", utc=True).astype("datetime64[ms, UTC]")
    events = {"user_id": np.char.add("user-", user.astype(str)), "item_id": ids[item], "timestamp": when, "event": "click"}
    pd.DataFrame(events).to_parquet(folder / "events.parquet")


def config_of(folder: Path, workers: int) -> RunConfig:
    """One epoch of a network of width 64 over all items."""
    return config_from_dict(
        {
            "name": "many",
            "data": {"events": str(folder / "events.parquet"), "items": str(folder / "items.parquet"), "store": "none"},
            "prepare": {"min_user_events": 2, "min_item_events": 1},
            "training": {"workers": workers, "epochs": 1, "refit": False, "seed": 7},
        }
    )


class Memory:
    """The most memory that this process's children have held together, in MB of PSS, phase by phase."""

    def __init__(self) -> None:
        self.most, self._over = [0.0], threading.Event()

    def turn(self) -> None:
        """A new phase begins."""
        self.most.append(0.0)

    def watch(self) -> None:
        """Look twice a second until `stop`."""
        while not self._over.wait(0.5):
            held = 0
            for child in psutil.Process().children(recursive=True):
                try:
                    held += child.memory_full_info().pss
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue
            self.most[-1] = max(self.most[-1], held / 2**20)

    def stop(self) -> None:
        """Look no more."""
        self._over.set()


@contextmanager
def children() -> Iterator[Memory]:
    """Watch the children's memory while the block lasts."""
    memory = Memory()
    thread = threading.Thread(target=memory.watch, daemon=True)
    thread.start()
    yield memory
    memory.stop()
    thread.join()


def timed(say: Callable[[str], None], name: str, work: Callable[[], Any]) -> Any:
    """Do some work, and tell its CPU and wall seconds, children included."""
    began, used = time.perf_counter(), cpu()
    found = work()
    say(f"| {name} | {cpu() - used:.0f} | {time.perf_counter() - began:.0f} |")
    return found


def cpu() -> float:
    """CPU seconds of this process and of its children that have ended."""
    spent = psutil.Process().cpu_times()
    return float(spent.user + spent.system + spent.children_user + spent.children_system)


def ranked(config: RunConfig, prepared: Path, pretrained: Path, out: Path) -> dict[str, Any]:
    """Stage evaluate; what was asked, and the model's NDCG@10 with its interval."""
    (out / "plots").mkdir()
    settings = {"evaluation": config.evaluation, "promotion": config.promotion, "seed": config.training.seed}
    found = evaluate(prepared, {"streaming": out / "bundle"}, {}, pretrained, out, print, **settings)
    low, high = json.loads((out / "intervals.json").read_text(encoding="utf-8"))["nightloom"]["streaming"]["ndcg_at_10"]
    asked = {name: found[name]["streaming"] for name in ("test_queries", "test_users", "sampled_from")}
    return asked | {"ndcg": found["metrics"]["nightloom"]["streaming"]["ndcg_at_10"], "low": low, "high": high}


def recall(text: torch.Tensor, has_text: torch.Tensor, found: TextNeighbours) -> float:
    """The share of the nearest texts of some items that are among the neighbours that were found."""
    unit = TextNeighbours.space(text, has_text)(text, has_text)
    items = np.sort(np.random.default_rng(SEED).choice(len(unit), 200, replace=False))
    near = (unit[items] @ unit.T).numpy()
    near[np.arange(len(items)), items] = 0
    exact = top_k(near, found.neighbours)
    spans = [found.targets[found.offsets[item] : found.offsets[item + 1]] for item in items]
    return float(np.mean([np.isin(wanted, there).mean() for wanted, there in zip(exact, spans, strict=True)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where to keep what is made; default: nowhere")
    parser.add_argument("--write", type=Path, help="Markdown file for the table")
    given = parser.parse_args()
    lines = ["| what | CPU s | wall s |", "|---|--:|--:|"]

    def say(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    with tempfile.TemporaryDirectory(dir=given.folder) as own:
        folder = Path(own)
        prepared, pretrained, out = (folder / name for name in ("prepared", "pretrained", "model"))
        for place in (prepared, pretrained, out):
            place.mkdir()
        write_tables(folder, given.items)
        config = config_of(folder, given.workers)
        snapshot = timed(say, "collect", lambda: collect(config.name, config.data, folder))
        rest = {"prepare": config.prepare, "evaluation": config.evaluation, "tags_separator": config.data.tags_separator}
        timed(say, "prepare", lambda: prepare(read_snapshot(snapshot.path), prepared, **rest))
        order = pd.read_parquet(prepared / "items.parquet", columns=["item_id"])["item_id"].str.removeprefix("item-").astype(int).to_numpy()
        np.save(pretrained / "text_vectors.npy", np.load(folder / "vectors.npy", mmap_mode="r")[order])
        np.save(pretrained / "text_mask.npy", np.ones(len(order), dtype=bool))
        (pretrained / "texts.json").write_text(json.dumps([f"Thing {number}" for number in order]))
        (pretrained / "pretrained.json").write_text("{}")
        with children() as memory:

            def train() -> None:
                fine_tune(config, "streaming", prepared, pretrained, out, lambda _: memory.turn())

            timed(say, f"one epoch, weights chosen and the bundle, {given.workers} workers", train)
        figures = timed(say, "evaluation", lambda: ranked(config, prepared, pretrained, out))
        content = Bundle.load(out / "bundle").recommender.content
        near = timed(say, "neighbours by text", lambda: TextNeighbours().read(content.text, content.has_text))
        found = recall(content.text, content.has_text, near)
    say("")
    epoch, rest = memory.most[0], max(memory.most[1:])
    asked, there = figures["test_queries"], figures["sampled_from"] or figures["test_queries"]
    say(f"{len(order):,} items. The workers held {epoch:,.0f} MB together at most in the epoch, and {rest:,.0f} MB after it.")
    say(f"Asked were {asked:,} events of {figures['test_users']:,} users, of {there:,} events:")
    say(f"NDCG@10 {figures['ndcg']:.4f} ({figures['low']:.4f} to {figures['high']:.4f}). Cells hold {found:.3f} of the neighbours.")
    if given.write:
        given.write.write_text("# Many items\n\n" + "\n".join(lines) + f"\n\n{conditions('many_items')}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
