"""How far in front a new item stands, the moment that it is put, among 100,000: for people who like what its text is like.

    python -m flows.nightly --preset movies-small
    python -m benchmarks.new_items movies-small [--items 100000] [--copies 100] [--table FILE]

The champion's artefact is enlarged by made-up items, each a mix of two real ones: text, vector and factors, and less popular than they.
Then an item is made up that has the text and columns of a real one, is put, and the list of a user is asked for. The real one is among the
user's 10 best, or in the user's history. The new one is removed again before the next is put.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from benchmarks.service_process import champion_of
from benchmarks.serving_engine import table
from nightloom.core.columns import CATALOGUE, Columns
from nightloom.core.moments import VectorMoments
from nightloom.core.queries import Query
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.serving_format import FILE, NETWORK, NEW_ITEMS, PROBES, RERANKER, SCORERS, ServingManifest
from nightloom.promotion.registry import Registry
from nightloom.serving.items.new_items import NewItem
from nightloom.serving.model.engine import Engine
from nightloom.serving.new_place import with_new

HEAD = (
    "the new item is like",
    "items",
    "in 10 best",
    "in 20 best",
    "among 20 shown",
    "median",
    "the real one in 20 best",
    "its median",
    "put, ms",
    "answer, ms",
)
WANTED, LOOKED_AT = 20, 1_000
Mixed = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]
"""The two real items of each made-up one, the share of the first, and how popular it is beside them."""


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the process's exit code: 0 where nine of ten new items are among the twenty that are shown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--root", type=Path, default=Path("mlruns"))
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--copies", type=int, default=100)
    parser.add_argument("--table", type=Path, help="also write the page to this Markdown file")
    given = parser.parse_args(arguments)
    champion = champion_of(given.root, given.name)
    registry = Registry(given.root.resolve())
    version = registry.champion(given.name)
    if version is None or champion.snapshot is None:
        sys.exit("the champion's snapshot is not here")
    bundle = Bundle.load(registry.fetch(version, given.root.resolve() / "cache" / "champions"))
    with tempfile.TemporaryDirectory(prefix="nightloom-items-") as scratch:
        enlarge(champion.folder, Path(scratch) / "large", given.items)
        engine = Engine.open(Path(scratch) / "large")
    histories = histories_of(champion.snapshot, engine)
    rows = [measured(engine, bundle, histories, given.copies, liked=liked) for liked in (True, False)]
    text = "\n".join(
        [
            f"# New items among {given.items:,}",
            "",
            f"{given.name}, of whose items all but {bundle.recommender.n_items:,} are made up; one thread.",
            "",
            *table(HEAD, rows),
            "",
            f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({platform.machine()}), load average {os.getloadavg()[0]:.1f}. Command:",
            "",
            f"    python -m benchmarks.new_items {shlex.join(sys.argv[1:] if arguments is None else arguments)}",
            "",
        ]
    )
    print(text)
    if given.table:
        given.table.write_text(text, encoding="utf-8")
    return 0 if all(float(row[4].rstrip(" %")) >= 90 for row in rows) else 1


def enlarge(folder: Path, target: Path, n: int) -> None:
    """Write an artefact with made-up items beside those of another.

    Args:
        folder: an artefact without re-ranker.
        target: where to.
        n: how many items it has then.
    """
    manifest, random = ServingManifest.read(folder), np.random.default_rng(0)
    if (folder / RERANKER).exists():
        sys.exit("the champion has a re-ranker, whose counters are not enlarged here: train one with model.reranker=false")
    target.mkdir()
    network, scorers, new = (load_file(folder / name) for name in (NETWORK, SCORERS, NEW_ITEMS))
    real = len(network["vectors"])
    mixed = (
        random.integers(0, real, n - real),
        random.integers(0, real, n - real),
        random.random(n - real).astype(np.float32),
        random.random(n - real).astype(np.float32),
    )
    network["vectors"] = longer(network["vectors"], mixed)
    moments = VectorMoments(network["vectors"])
    network["mean"], network["covariance"] = moments.mean, moments.covariance
    unit = longer(new["neighbours.unit"], mixed)
    new["neighbours.unit"] = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12).astype(np.float32)
    for name, array in scorers.items():
        if name.endswith((".counts", ".popularity", ".seen")):
            scorers[name] = np.concatenate([array, np.maximum(mixed[3] * mixed_of(array, mixed), 1).astype(array.dtype)])
        elif name.endswith(".offsets"):
            scorers[name] = np.concatenate([array, np.full(n - real, array[-1])])
        elif name.endswith(".expected"):
            scorers[name] = np.concatenate([array, np.zeros(n - real, np.float32)])
    if "als.vectors" in scorers:
        scorers["als.vectors"] = longer(scorers["als.vectors"], mixed, mixed[3])
    new["neighbours.known"] = np.concatenate([new["neighbours.known"], np.ones(n - real, dtype=bool)])
    for name, arrays in ((NETWORK, network), (SCORERS, scorers), (NEW_ITEMS, new)):
        save_file({key: np.ascontiguousarray(one) for key, one in arrays.items()}, target / name)
    ids = [*Columns(folder / CATALOGUE)["item_id"], *(f"made up {number}" for number in range(n - real))]
    Columns.write({"item_id": ids}, target / CATALOGUE)
    (target / PROBES).write_text("[]", encoding="utf-8")
    said = {name: getattr(manifest, name) for name in ServingManifest.__dataclass_fields__ if name not in ("format", "nightloom", "files")}
    ServingManifest.seal(target, **{**said, "text_encoder": None})
    if not (target / FILE).exists():
        raise FileNotFoundError(target / FILE)


def mixed_of(values: NDArray[Any], mixed: Mixed) -> NDArray[Any]:
    """Made-up rows: mixes of two real ones."""
    first, second, share, _ = mixed
    part = share.reshape(-1, *[1] * (values.ndim - 1))
    found: NDArray[Any] = values[first] * part + values[second] * (1 - part)
    return found


def longer(values: NDArray[np.float32], mixed: Mixed, scale: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Real rows, and made-up ones behind them."""
    made = mixed_of(values, mixed)
    return np.concatenate([values, made if scale is None else made * scale[:, None]]).astype(np.float32)


def histories_of(snapshot: Path, engine: Engine) -> list[Query]:
    """What people of a snapshot have done, oldest first."""
    events = pd.read_parquet(snapshot / "events.parquet").sort_values("timestamp", kind="stable")
    events = events[events["item_id"].isin(engine.item_index)]
    seconds = events["timestamp"].astype("datetime64[s, UTC]").astype("int64")
    parts = events.assign(second=seconds).groupby("user_id")
    return [Query(part["item_id"].tolist(), part["second"].tolist()) for _, part in parts if len(part) >= WANTED]


def pairs(engine: Engine, bundle: Bundle, histories: list[Query], many: int, *, liked: bool) -> Iterator[tuple[Query, int, int]]:
    """Queries, each with a real item that has a text, and its place in the list: in one with seen items where it is one of the history."""
    random, has_text = np.random.default_rng(1), bundle.recommender.content.has_text.numpy()
    for number in random.permutation(len(histories))[:many].tolist():
        query = histories[number]
        if liked:
            late = [item for item in query.history[-WANTED:] if has_text[bundle.index[item]]]
            item = bundle.index[random.choice(late)]
            best = engine.recommend(query, LOOKED_AT, exclude_seen=False)[0]
            yield query, item, place_of(item, best)
        else:
            real = [(place, item) for place, item in enumerate(engine.recommend(query, 200)[0].tolist(), 1) if item < len(has_text)]
            place, item = real[int(random.integers(0, min(10, len(real))))]
            yield query, item, place


def place_of(item: int, found: NDArray[np.int64]) -> int:
    """Its place in a list; one behind the last where it is not there."""
    return 1 + next(iter(np.flatnonzero(found == item).tolist()), LOOKED_AT)


def as_shown(engine: Engine, query: Query) -> list[int]:
    """The list of twenty that the service makes, one place of which is kept for what came by day."""
    return with_new(engine, query, lambda many, also: engine.recommend(query, many, also=also), WANTED, (), np.zeros(0, np.uint32))[0]


def measured(engine: Engine, bundle: Bundle, histories: list[Query], many: int, *, liked: bool) -> tuple[str, ...]:
    """A line of the table."""
    columns, texts = Columns(bundle.folder / CATALOGUE), bundle.recommender.content.text.numpy()
    places, real, shown, puts, answers = list[int](), list[int](), list[bool](), list[float](), list[float]()
    for number, (query, item, place) in enumerate(pairs(engine, bundle, histories, many, liked=liked)):
        began = time.perf_counter()
        said = {name: columns[name][item] for name in columns.names}
        dense = engine.put_item(NewItem(f"new {liked} {number}", said, texts[item]))
        put = time.perf_counter()
        shown.append(dense in as_shown(engine, query))
        answers.append(time.perf_counter() - put)
        found = engine.recommend(query, LOOKED_AT)[0]
        puts.append(put - began)
        places.append(place_of(dense, found))
        real.append(place)
        engine.remove_item(f"new {liked} {number}")
    which = "one of the user's last 20" if liked else "one of the user's 10 best"
    shares = [f"{100 * np.mean(np.array(places) <= top):.0f} %" for top in (10, WANTED)]
    shares.append(f"{100 * np.mean(shown):.0f} %")
    own = f"{100 * np.mean(np.array(real) <= WANTED):.0f} %"
    times = [f"{1000 * np.median(one):.0f}" for one in (puts, answers)]
    return which, f"{len(places)}", *shares, f"{np.median(places):.0f}", own, f"{np.median(real):.0f}", *times


if __name__ == "__main__":
    sys.exit(main())
