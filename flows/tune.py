"""Tuning: validate, load pretrained, then many fine-tunings with other values, compared on validation.

python -m flows.tune (--preset NAME | --config FILE.yaml) --minutes M [--trials N] [--seeds S] [--at-once N]
                     [--set key=value ...] [--study NAME] [--write-preset FILE.yaml]
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from pathlib import Path

from flows.command import before_prefect, parser, run
from nightloom.training.budget import Budget


def check(given: Namespace) -> None:
    """Refuse a budget with which nothing could be tried."""
    Budget(given.minutes, given.trials, given.seeds, given.at_once)


command = parser("tune", "Search for a better config.")
command.add_argument("--minutes", type=float, required=True, help="of training, over all starts of the study")
command.add_argument("--trials", type=int, help="at most so many")
command.add_argument("--seeds", type=int, default=1, help="trainings a trial, averaged (default 1)")
command.add_argument("--at-once", type=int, default=1, help="trials that train side by side (1), each with training.workers")
command.add_argument("--study", help="name; by default the config's")
command.add_argument("--write-preset", metavar="FILE", help="where the best config goes (default best.yaml in the study's folder)")
given = before_prefect(__name__, command, check)  # a typo is refused before the imports below, which take seconds

from prefect import flow
from rich.console import Console

from nightloom.config import RunConfig
from nightloom.core.names import check_study
from nightloom.report.tuning import print_tuned
from nightloom.runs.stages import Night
from nightloom.training.search import Tuned
from tasks.collect import collect
from tasks.load_pretrained import load_pretrained
from tasks.prepare import prepare
from tasks.tune import tune as search
from tasks.validate import validate


@flow(name="tune", validate_parameters=True)
def tune(
    config: RunConfig,
    minutes: float = 30.0,
    trials: int | None = None,
    seeds: int = 1,
    study: str | None = None,
    preset: str | None = None,
    at_once: int = 1,
) -> Tuned:
    """Search for a better config; a study that was killed or has more time now goes on.

    Args:
        config: where the search starts, and all that it does not change.
        minutes: of training, over all starts of this study.
        trials: at most so many, likewise.
        seeds: trainings a trial, averaged.
        study: its name and folder `mlruns/tuning/<study>/`; empty: the config's name.
        preset: file for the best config; empty: `best.yaml` in the study's folder.
        at_once: trials that train side by side, each with `training.workers`.
    """
    check_study(study or config.name)
    budget = Budget(minutes, trials, seeds, at_once)
    night = Night.start(config, Path(os.environ.get("NIGHTLOOM_ROOT", "mlruns")), run_directory=f"tuning/{study or config.name}")
    collected = collect(night)
    checked = validate(night, collected)
    prepared = prepare(night, checked)
    pretrained = load_pretrained(night, prepared)
    return search(night, collected, prepared, pretrained, budget, Path(preset or night.folder / "best.yaml"))


def main(given: Namespace) -> int:
    """Tune from the command line; gives the exit code: 0 ended well, 1 a fault, 2 refused input."""

    def show(tuned: Tuned, console: Console) -> None:
        root = Path(os.environ.get("NIGHTLOOM_ROOT", "mlruns"))
        print_tuned(tuned, given.write_preset or str(root / "tuning" / tuned.name / "best.yaml"), console)

    return run(lambda: tune(given.config, given.minutes, given.trials, given.seeds, given.study, given.write_preset, given.at_once), show)


if __name__ == "__main__":
    sys.exit(main(given))
