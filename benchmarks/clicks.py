"""The click head against LightGBM and logistic regression on the same features, over several seeds.

    python -m benchmarks.clicks --presets ads-avazu ads-criteo --seeds 7 8 9 [--nights 8] [--set clicks.epochs=2] [--table FILE]

Settings and calibration are chosen on folds before the test part, and each run asks the test part once. With `--nights` the latter
half of the log is asked in that many parts instead (`benchmarks/click_nights.py`). Runs are kept under `<mlruns>/bench/clicks/`, so a
benchmark that was cut off goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.click_nights import fit_and_measure_nights
from nightloom.config import RunConfig, load_config, load_preset
from nightloom.core.errors import NightloomError
from nightloom.data.collect import collect
from nightloom.data.preparation.impressions import Impressions, impressions
from nightloom.data.tables.snapshot import read_snapshot
from nightloom.experiments.click_baselines import differences, fit_and_measure
from nightloom.models.ctr.names import FAMILIES
from nightloom.report.clicks import NOTE, apart, markdown, shown
from nightloom.runs.provenance import git_state


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the process's exit code."""
    given = parse(arguments)
    console, root = Console(highlight=False), Path(os.environ.get("NIGHTLOOM_ROOT", "mlruns"))
    parts, results = [], {}
    try:
        for source in given.config or given.presets:
            config = config_of(source, given)
            rows = impressions(read_snapshot(collect(config.name, config.data, root).path), config.prepare, config.clicks.test_from)
            found, lines = measure(rows, source, given, root / "bench" / "clicks", console)
            results[config.name] = found
            console.print(shown(config.name, found), *lines, sep="\n", soft_wrap=True)
            parts.append(markdown(config.name, found, lines, "Differences to LightGBM are of the first seed." if lines else ""))
    except NightloomError as error:
        console.print(str(error), style="red", markup=False)
        return error.exit_code
    if given.table:
        said = f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, at {git_state(Path(__file__).parent)[:7]}. Mean over seeds "
        said += f"{', '.join(map(str, given.seeds))} ± standard deviation; the seed changes the models, not the split. "
        said += f"Command: `python -m benchmarks.clicks {shlex.join(sys.argv[1:] if arguments is None else arguments)}`."
        page = ["# Click head and baselines\n", *parts, f"{overall(results)}\n", f"{NOTE}\n", f"{said}\n"]
        given.table.write_text("\n".join(page), encoding="utf-8")
    return 0


def measure(
    rows: Impressions, source: str, given: argparse.Namespace, home: Path, console: Console
) -> tuple[list[dict[str, Any]], list[str]]:
    """All families and seeds of one set, and in words how they differ from LightGBM at the first seed."""
    found, folders = [], {}
    for seed in given.seeds:
        config = config_of(source, given, seed)
        for family in given.families:
            folder = home / config.name / f"{family}-{seed}-{config.digest()[:12]}{f'-{given.nights}-nights' if given.nights else ''}"
            if not (folder / "result.json").exists():
                folder.mkdir(parents=True, exist_ok=True)
                if given.nights:
                    fit_and_measure_nights(rows, family, config, folder, given.nights)
                else:
                    fit_and_measure(
                        rows, family, folder, clicks=config.clicks, seed=config.training.seed, confidence=config.promotion.confidence
                    )
            found.append(json.loads((folder / "result.json").read_text(encoding="utf-8")))
            folders[family, seed] = folder
            console.print(f"{config.name}, {family}, seed {seed}: {found[-1]['test']}", soft_wrap=True)
    first = {family: folders[family, given.seeds[0]] for family in given.families}
    confidence = config.promotion.confidence
    return found, apart(differences(first, confidence), confidence)


def overall(results: dict[str, list[dict[str, Any]]]) -> str:
    """Each model's means over the sets."""
    lines = ["Mean over the sets, test part: "]
    for family in dict.fromkeys(one["family"] for found in results.values() for one in found):
        means = [
            np.mean([np.mean([one["test"][name] for one in found if one["family"] == family]) for found in results.values()])
            for name in ("auc", "log_loss")
        ]
        lines.append(f"{family} AUC {means[0]:.4f}, log-loss {means[1]:.4f}; ")
    return "".join(lines).removesuffix("; ") + "."


def config_of(source: str | Path, given: argparse.Namespace, seed: int = 7) -> RunConfig:
    """The config of one run."""
    overrides = [f"training.seed={seed}", *given.overrides]
    return load_config(source, overrides) if isinstance(source, Path) else load_preset(source, overrides)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clicks", description="Click head and baselines over seeds.")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--presets", nargs="+", default=["ads-avazu", "ads-criteo"])
    source.add_argument("--config", type=Path, nargs="+", help="your own YAML files")
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--nights", type=int, help="ask the latter half of the log in so many parts, not the test part alone")
    parser.add_argument("--table", type=Path, help="also write the tables to this Markdown file")
    given = parser.parse_args(arguments)
    if given.nights is not None and given.nights < 1:
        parser.error(f"--nights {given.nights}: one night is the least")
    return given


if __name__ == "__main__":
    sys.exit(main())
