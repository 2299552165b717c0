"""The replay: N nights over history, retrained from scratch, warm-started, and frozen since the first night.

python -m flows.replay (--preset NAME | --config FILE.yaml) [--nights 14] [--from DATE] [--step-days 1] [--at-once N] [--table FILE]
                       [--set key=value ...]
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from flows.command import before_prefect, parser, run, show_table
from nightloom.experiments.arguments import check_nights

command = parser("replay", "Live past nights again.")
command.add_argument("--nights", type=int, default=14, help="how many nights (14)")
command.add_argument("--from", dest="first", metavar="DATE", help="date of the first night; by default the last ends with the data")
command.add_argument("--step-days", type=float, default=1.0, help="days from night to night (1)")
command.add_argument("--at-once", type=int, default=1, help="trainings from scratch side by side (1), each with training.workers")
command.add_argument("--table", type=Path, metavar="FILE", help="Markdown file for the table")
# A typo is refused before the imports below, which take seconds.
given = before_prefect(__name__, command, lambda given: check_nights(given.nights, given.step_days, given.at_once))

from prefect import flow

from expectations.run import read_checked
from nightloom.config import RunConfig
from nightloom.experiments.replay import moments
from nightloom.runs.provenance import run_tags
from nightloom.runs.stages import Night
from nightloom.runs.tracking import Tracking
from tasks.collect import collect
from tasks.replay import replay_night, replay_scratch, summarise
from tasks.validate import validate


@flow(name="replay", validate_parameters=True)
def replay(
    config: RunConfig, nights: int = 14, first: str | None = None, step_days: float = 1.0, table: Path | None = None, at_once: int = 1
) -> dict[str, Any]:
    """Live past nights again and compare the ways of retraining; registers nothing.

    Args:
        config: the run's configuration; files are kept under `<name>-replay`, apart from the real nights.
        nights: how many nights.
        first: date of the first night; by default the last one's period ends with the data.
        step_days: days from night to night.
        table: file that gets the table as Markdown.
        at_once: trainings from scratch that run side by side, each with `training.workers`.
    """
    check_nights(nights, step_days, at_once)
    training = config.training.model_copy(update={"warm_start": True})
    evaluation = config.evaluation.model_copy(update={"protocols": ("temporal",)})
    config = config.model_copy(update={"name": f"{config.name[:56]}-replay", "training": training, "evaluation": evaluation})
    night = Night.start(config, Path(os.environ.get("NIGHTLOOM_ROOT", "mlruns")))
    collected = collect(night)
    with Tracking(night.root).night(night, run_tags(night, collected.figures["hash"])) as run:
        checked = validate(night, collected)
        when = moments(read_checked(checked.path).events, nights, step_days, first)
        scratch = replay_scratch(night, checked, when, at_once)
        lived: list[Any] = []
        for moment, made in zip(when, scratch, strict=True):
            lived.append(replay_night(night, moment, made, lived[-1] if lived else None, scratch[0]))
        return summarise(night, run, lived, table)


def main(given: Namespace) -> int:
    """Run a replay from the command line; gives the exit code: 0 ended well, 1 a fault, 2 refused input."""
    return run(lambda: replay(given.config, given.nights, given.first, given.step_days, given.table, given.at_once), show_table)


if __name__ == "__main__":
    sys.exit(main(given))
