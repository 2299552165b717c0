"""How long and how much memory the data contract takes on a million events, 0.3 % of them bad in each of six ways.

    python -m benchmarks.validate_million [--events 1000000] [--write benchmarks/validate_million.md]

Seconds count from before Great Expectations is imported to after Data Docs, quarantine and good rows are on disk; the peak is of the
whole process, the synthetic tables included.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from nightloom.config import config_from_dict
from nightloom.data.tables.schema import Tables
from nightloom.runs.stages import Usage

BAD_SHARE = 0.003
USERS, ITEMS = 60_000, 20_000
NOW = datetime(2026, 11, 24, 2, tzinfo=UTC)


def synthetic(count: int) -> Tables:
    """A shop's tables with bad events of each sort, each sort in rows of its own."""
    rng = np.random.default_rng(11)
    seconds = int(NOW.timestamp()) - rng.integers(3600, 3 * 365 * 86400, count)
    users = pd.Series(np.char.add("user-", rng.integers(0, USERS, count).astype(str)), dtype="str")
    items = pd.Series(np.char.add("item-", rng.integers(0, ITEMS, count).astype(str)), dtype="str")
    names = pd.Series(rng.choice(["view", "click", "purchase"], count, p=[0.7, 0.2, 0.1]), dtype="str")
    stamps = pd.Series(pd.to_datetime(seconds, unit="s", utc=True)).astype("datetime64[ms, UTC]")
    events = pd.DataFrame({"user_id": users, "item_id": items, "timestamp": stamps, "event": names, "value": rng.random(count) * 5})
    sorts = np.array_split(rng.permutation(count)[: 6 * int(BAD_SHARE * count)], 6)
    events.loc[sorts[0], "user_id"] = None
    events.loc[sorts[1], "item_id"] = "item-unknown"
    events.loc[sorts[2], "timestamp"] = pd.Timestamp("2200-01-01", tz="UTC")
    events.loc[sorts[3], "timestamp"] = pd.Timestamp("1970-01-21", tz="UTC")
    events.loc[sorts[4], "event"] = "unheard of"
    events.loc[sorts[5], "value"] = 99.0
    catalogue = pd.DataFrame({"item_id": pd.Series([f"item-{code}" for code in range(ITEMS)], dtype="str")})
    catalogue["title"] = "Title of " + catalogue["item_id"]
    return Tables(events, catalogue, features={"title": "text"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--write", type=Path, help="Markdown file for the table")
    chosen = parser.parse_args()
    limits = {"max_bad_share": 0.05, "value_range": [0, 5], "allowed_events": ["view", "click", "purchase"], "max_age_days": 30}
    config = config_from_dict({"name": "million", "data": {"events": "events.parquet"}, "validation": limits})
    with Usage() as memory, tempfile.TemporaryDirectory() as folder:
        tables = synthetic(chosen.events)
        began, cpu = time.perf_counter(), time.process_time()
        from expectations.run import check

        imported = time.perf_counter()
        figures = check(tables, config, Path(folder), None, NOW)
        ended, spent = time.perf_counter(), time.process_time() - cpu
    rows = [
        ("events", f"{chosen.events:,}"),
        ("quarantined", f"{figures['quarantined']['events']:,}"),
        ("rules", str(figures["rules"])),
        ("seconds, import of Great Expectations", f"{imported - began:.1f}"),
        ("seconds, contracts, quarantine, Data Docs", f"{ended - imported:.1f}"),
        ("seconds, all", f"{ended - began:.1f}"),
        ("CPU seconds, all", f"{spent:.1f}"),
        ("peak memory of the process, MB", f"{memory.peak_mb:,.0f}"),
    ]
    table = "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])
    print(table)
    if chosen.write:
        chosen.write.write_text(f"# Validating {chosen.events:,} events\n\n{table}\n\n{conditions('validate_million')}\n", encoding="utf-8")


def conditions(module: str) -> str:
    """When, where and how; `module` is the benchmark's."""
    load = os.getloadavg()[0]
    cpu = next(
        (line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), ""
    )
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({cpu}), load average {load:.1f} at the end, "
        f"Python {platform.python_version()}, pandas {pd.__version__}, at {git}. "
        f"Command: `python -m benchmarks.{module} {' '.join(sys.argv[1:])}`."
    )


if __name__ == "__main__":
    main()
