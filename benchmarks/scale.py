"""What collect, validate and prepare take as events grow: CPU seconds, peak memory and wall time of each, in a process of its own.

    make bench-scale ARGS="--events 1000000 10000000 [--second] [--write benchmarks/scale.md] [--plot docs/images/scale.png]"

The tables are made here from a seed: a shop of 100,000 items with a user for every hundred events, a long tail of popularity, repeats,
and 0.1 % of bad rows of each of four sorts. Events are a folder of files of a million rows. With `--second` a second night follows, for
which a file of 1 % new events, of the day after, has come.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.validate_million import conditions
from nightloom.config import RunConfig, config_from_dict
from nightloom.data.tables.kept import kept_home
from nightloom.evaluation.plots import figure

SEED = 20
ITEMS = 100_000
EVENTS_A_USER = 100
GROUP = 1_000_000
BAD_SHARE = 0.001
NAMES = np.array(["view", "click", "purchase"])
NOW = datetime(2026, 11, 24, 2, tzinfo=UTC)
STAGES = ("collect", "validate", "prepare")


def write_tables(folder: Path, count: int) -> None:
    """Write the folder `events` and `items.parquet`; the same count gives the same tables."""
    rng = np.random.default_rng(SEED)
    items = [f"item-{code}" for code in range(ITEMS)]
    kinds = rng.integers(0, 50, ITEMS)
    titles = [f"Thing {code} of kind {kind}" for code, kind in enumerate(kinds)]
    catalogue = pa.table({"item_id": items, "title": titles, "kind": [f"kind {kind}" for kind in kinds]})
    pq.write_table(catalogue, folder / "items.parquet")
    (folder / "events").mkdir()
    for number, first in enumerate(range(0, count, GROUP)):
        write_events(folder / "events" / f"{number:05}.parquet", rng, min(GROUP, count - first), count, 365)


def write_second(folder: Path, count: int) -> None:
    """Write one file more: 1 % new events, of the day before the second night."""
    write_events(folder / "events" / "later.parquet", np.random.default_rng(SEED + 1), count // 100, count, -1)


def write_events(path: Path, rng: np.random.Generator, rows: int, count: int, days: int) -> None:
    """Write a file of events of the last `days` before the first night, or where they are negative after it."""
    users, end = max(count // EVENTS_A_USER, 10), int(NOW.timestamp())
    codes = np.minimum((ITEMS * rng.random(rows) ** 3).astype(np.int64), ITEMS - 1)
    seconds = end - 3600 - rng.integers(min(days, 0) * 86400, max(days, 0) * 86400, rows)
    names = NAMES[rng.choice(3, rows, p=[0.7, 0.2, 0.1])].astype(object)
    values = np.round(rng.random(rows) * 5, 2)
    user_ids = pa.array(np.char.add("user-", rng.integers(0, users, rows).astype(str)))
    item_ids = np.char.add("item-", codes.astype(str)).astype(object)
    sorts = np.array_split(rng.permutation(rows)[: 4 * int(BAD_SHARE * rows)], 4)
    item_ids[sorts[0]] = "item-unknown"
    seconds[sorts[1]] = 7_258_118_400  # the year 2200
    names[sorts[2]] = "unheard of"
    values[sorts[3]] = 99.0
    stamps = pa.array(seconds * 1000, type=pa.timestamp("ms", tz="UTC"))
    content = {"user_id": user_ids, "item_id": pa.array(item_ids), "timestamp": stamps, "event": pa.array(names), "value": values}
    pq.write_table(pa.table(content), path)


def config_of(folder: Path) -> RunConfig:
    """The config of a shop that trains on all events and wants those of `NAMES` alone."""
    return config_from_dict(
        {
            "name": "scale",
            "data": {"events": str(folder / "events"), "items": str(folder / "items.parquet"), "store": "none"},
            "validation": {"max_bad_share": 0.05, "value_range": [0, 5], "allowed_events": NAMES.tolist()},
            "prepare": {"min_user_events": 3, "min_item_events": 2, "positive_events": ["click", "purchase"]},
        }
    )


def run_stage(stage: str, folder: Path, night: int) -> dict[str, Any]:
    """Run one stage of a night in this process, on what the stages before it left in the folder."""
    config, root, now = config_of(folder), folder / "mlruns", NOW + timedelta(days=night - 1)
    out = folder / f"{stage}-{night}"
    if stage == "collect":
        from nightloom.data.collect import collect

        return {"place": str(collect("scale", config.data, root).path)}
    out.mkdir()
    if stage == "validate":
        from expectations.run import check
        from nightloom.data.tables.snapshot import read_snapshot

        collected = Path(json.loads((folder / f"collect-{night}.json").read_text())["place"])
        return check(read_snapshot(collected, in_blocks=True), config, out, None, now, kept_home(root, "scale") / "validate")
    from expectations.run import read_checked
    from nightloom.data.preparation.prepare import prepare

    good, separator = read_checked(folder / f"validate-{night}", in_blocks=True), config.data.tags_separator
    keep = kept_home(root, "scale") / "prepare"
    return prepare(good, out, prepare=config.prepare, evaluation=config.evaluation, tags_separator=separator, keep=keep)


def measured(stage: str, folder: Path, night: int) -> dict[str, float]:
    """Run one stage in a process of its own: `cpu` and `wall` in seconds, and `peak_mb`."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.scale", "--stage", stage, "--folder", str(folder), "--night", str(night)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    if told.returncode:
        raise SystemExit(f"{stage} failed:\n{told.stderr[-3000:]}")
    return json.loads(told.stdout.splitlines()[-1]) | {"wall": time.perf_counter() - began}


def table_of(found: dict[int, dict[str, dict[str, float]]]) -> str:
    """The measurements as a Markdown table."""
    lines = ["| events | stage | CPU s | wall s | peak MB | CPU s a million |", "|--:|---|--:|--:|--:|--:|"]
    for count, stages in found.items():
        total = {key: sum(one[key] for one in stages.values()) for key in ("cpu", "wall")}
        total["peak_mb"] = max(one["peak_mb"] for one in stages.values())
        for stage, one in {**stages, "all": total}.items():
            million = one["cpu"] / count * 1e6
            lines.append(f"| {count:,} | {stage} | {one['cpu']:.1f} | {one['wall']:.1f} | {one['peak_mb']:,.0f} | {million:.2f} |")
    return "\n".join(lines)


def tables_of(found: dict[int, dict[str, dict[str, float]]], later: dict[int, dict[str, dict[str, float]]]) -> str:
    """The tables of both nights, as Markdown."""
    return f"{table_of(found)}\n\nThe second night, with 1 % new events:\n\n{table_of(later)}" if later else table_of(found)


def draw(path: Path, found: dict[int, dict[str, dict[str, float]]]) -> None:
    """CPU seconds a million events, and peak memory, by events."""
    with figure(path, "Growing tables", 4.0, columns=2, sharey=False) as (costs, peaks):
        counts = list(found)
        for stage in STAGES:
            costs.plot(counts, [found[count][stage]["cpu"] / count * 1e6 for count in counts], "o-", label=stage)
            peaks.plot(counts, [found[count][stage]["peak_mb"] / 1024 for count in counts], "o-", label=stage)
        for axis, said in ((costs, "CPU seconds a million"), (peaks, "peak memory, GB")):
            axis.set(xscale="log", xlabel="events", ylabel=said, ylim=(0, None))
            axis.legend(frameon=False, fontsize=9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--write", type=Path, help="Markdown file for the table")
    parser.add_argument("--plot", type=Path, help="PNG of cost and memory by events")
    parser.add_argument("--folder", type=Path, help="where to keep the tables and what the stages make; default: nowhere")
    parser.add_argument("--second", action="store_true", help="measure a second night, too, with 1 %% new events")
    parser.add_argument("--stage", choices=STAGES, help="run this stage alone, in the folder")
    parser.add_argument("--night", type=int, choices=(1, 2), default=1, help="of which night the stage is")
    chosen = parser.parse_args()
    if chosen.stage:
        made = run_stage(chosen.stage, chosen.folder, chosen.night)
        (chosen.folder / f"{chosen.stage}-{chosen.night}.json").write_text(json.dumps(made), encoding="utf-8")
        spent = resource.getrusage(resource.RUSAGE_SELF)
        print(json.dumps({"cpu": spent.ru_utime + spent.ru_stime, "peak_mb": spent.ru_maxrss / 1024}))
        return
    found: dict[int, dict[str, dict[str, float]]] = {}
    later: dict[int, dict[str, dict[str, float]]] = {}
    for count in chosen.events:
        with tempfile.TemporaryDirectory(dir=chosen.folder) as own:
            write_tables(Path(own), count)
            found[count] = {stage: measured(stage, Path(own), 1) for stage in STAGES}
            if chosen.second:
                write_second(Path(own), count)
                later[count + count // 100] = {stage: measured(stage, Path(own), 2) for stage in STAGES}
        print(tables_of(found, later), flush=True)
    if chosen.plot:
        draw(chosen.plot, found)
    if chosen.write:
        chosen.write.write_text(f"# Growing tables\n\n{tables_of(found, later)}\n\n{conditions('scale')}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
