"""Baselines beside the model: the full model, its variants and the classics, trained and ranked on the same events and queries.

python -m flows.baselines (--preset NAME | --config FILE.yaml) [--models a,b,c] [--set key=value ...] [--table FILE]
"""

from __future__ import annotations

import os
import shlex
import sys
from argparse import Namespace
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.command import before_prefect, listed, parser, run
from nightloom.experiments.arguments import EVERY


def check(given: Namespace) -> None:
    """Refuse models that there are not."""
    given.models = listed(given.models, EVERY)


command = parser("baselines", "Train the model and its baselines, and rank them side by side.")
command.add_argument("--models", "--families", dest="models", help=f"comma-separated, of {', '.join(EVERY)}; by default all")
command.add_argument("--table", type=Path, help="also write the Markdown table to this file")
given = before_prefect(__name__, command, check)  # a typo is refused before the imports below, which take seconds

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner
from rich.console import Console

from nightloom.config import RunConfig
from nightloom.core.secrets import hidden
from nightloom.report.baselines import table
from nightloom.runs.provenance import git_state, run_tags
from nightloom.runs.stages import Night
from nightloom.runs.tracking import Tracking
from tasks.baselines import compare_baselines, measure_family
from tasks.collect import collect
from tasks.load_pretrained import load_pretrained
from tasks.prepare import prepare
from tasks.validate import validate

CORES = os.cpu_count() or 1


@flow(name="baselines", validate_parameters=True, task_runner=ThreadPoolTaskRunner(max_workers=CORES))  # type: ignore[arg-type]
def baselines(config: RunConfig, names: list[str] | None = None, said: str = "") -> dict[str, Any]:
    """Train models in parallel, as many at once as there are cores, and rank them on the same queries.

    With `training.launcher: ray` so many are handed in at once as this machine has cores, and wait there for a free CPU.

    Args:
        config: the run's configuration.
        names: which models; all where none are named.
        said: a line for the end of the table: when, where and how it was made.

    Returns:
        `results` of each model, `failed` (model -> why), `markdown` and `folder`.
    """
    night = Night.start(config, Path(os.environ.get("NIGHTLOOM_ROOT", "mlruns")))
    night = replace(night, night=f"{night.night}-baselines")
    collected = collect(night)
    with Tracking(night.root).night(night, run_tags(night, collected.figures["hash"])) as run:
        prepared = prepare(night, validate(night, collected))
        pretrained = load_pretrained(night, prepared)
        running = {name: measure_family.submit(night, name, prepared, pretrained) for name in names or EVERY}
        ended = {name: future.result(raise_on_failure=False) for name, future in running.items()}
        failed = {name: end for name, end in ended.items() if isinstance(end, BaseException)}
        done = [end for name, end in ended.items() if name not in failed]
        if not done:
            raise next(iter(failed.values()))
        text = compare_baselines(night, run, collected, done, said)
    results, why = [one.figures for one in done], {name: hidden(str(error)) for name, error in failed.items()}
    return {"results": results, "failed": why, "markdown": text, "folder": str(night.folder)}


def main(given: Namespace) -> int:
    """Compare models from the command line; gives the exit code: 0 all were ranked, 1 a fault, 2 refused input."""

    def show(result: dict[str, Any], console: Console) -> int:
        for protocol in result["results"][0]["metrics"]:
            console.print(table(result["results"], protocol))
        console.print(f"Table and results: {result['folder']}/baselines.md", soft_wrap=True)
        for name, why in result["failed"].items():
            Console(stderr=True, highlight=False).print(f"{name} was left out: {why}", markup=False, style="red", soft_wrap=True)
        if given.table:
            given.table.write_text(result["markdown"], encoding="utf-8")
        return 1 if result["failed"] else 0

    return run(lambda: baselines(given.config, given.models, _said(given.config)), show, unwind=False)


def _said(config: RunConfig) -> str:
    commit = git_state(Path(__file__).parent)[:7]
    line = hidden(f"python -m flows.baselines {shlex.join(sys.argv[1:])}")
    return f"{datetime.now(UTC):%Y-%m-%d}, {CORES} cores, seed {config.training.seed}, at {commit}. Command: `{line}`."


if __name__ == "__main__":
    sys.exit(main(given))
