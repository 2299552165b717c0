"""Probabilities of a click: the head and its baselines, fitted on what was shown and laid side by side.

python -m flows.clicks (--preset NAME | --config FILE.yaml) [--models head,lightgbm,logistic] [--set key=value ...]
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

from flows.command import before_prefect, listed, parser, run
from nightloom.models.ctr.names import FAMILIES


def check(given: Namespace) -> None:
    """Refuse click models that there are not."""
    given.models = listed(given.models, FAMILIES, "click model")


command = parser("clicks", "Probabilities of a click: the head and its baselines.")
command.add_argument("--models", "--families", dest="models", help=f"comma-separated, of {', '.join(FAMILIES)}; by default all")
given = before_prefect(__name__, command, check)  # a typo is refused before the imports below, which take seconds

from prefect import flow
from rich.console import Console

from nightloom.config import RunConfig
from nightloom.report.clicks import shown
from nightloom.runs.provenance import run_tags
from nightloom.runs.stages import Night
from nightloom.runs.tracking import Tracking
from tasks.clicks import compare_clicks, fit_clicks, prepare_clicks
from tasks.collect import collect
from tasks.promote_clicks import HEAD, promote_clicks
from tasks.validate import validate


@flow(name="clicks", validate_parameters=True)
def clicks(config: RunConfig, names: list[str] | None = None) -> dict[str, Any]:
    """Fit click models one after the other, measure them on the same rows, and promote the head if it is as good as what serves.

    Args:
        config: the run's configuration.
        names: which families; all where none are named.

    Returns:
        `name`, `results` of each family, `markdown`, `gate` (what was decided of the head; None where it was not fitted) and `folder`.
    """
    night = Night.start(config, Path(os.environ.get("NIGHTLOOM_ROOT", "mlruns")))
    night = replace(night, night=f"{night.night}-clicks")
    collected = collect(night)
    with Tracking(night.root).night(night, run_tags(night, collected.figures["hash"])) as run:
        prepared = prepare_clicks(night, validate(night, collected))
        fitted = [fit_clicks(night, family, prepared) for family in names or FAMILIES]
        text, runs = compare_clicks(night, run, collected, fitted)
        gate = promote_clicks(night, collected, prepared, fitted, runs[HEAD]).figures["decision"] if HEAD in runs else None
    return {
        "name": config.name,
        "results": [one.figures for one in fitted],
        "markdown": text,
        "gate": gate,
        "folder": str(night.folder),
    }


def main(given: Namespace) -> int:
    """Fit click models from the command line; gives the exit code: 0 all were measured, 1 a fault, 2 refused input."""
    return run(lambda: clicks(given.config, given.models), _show)


def _show(result: dict[str, Any], console: Console) -> None:
    console.print(shown(result["name"], result["results"]))
    if result["gate"]:
        console.print(f"The head: {result['gate']['decision']}. {' '.join(result['gate']['reasons'])}", soft_wrap=True)
    console.print(f"Table, results and calibration: {result['folder']}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main(given))
