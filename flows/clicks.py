"""Chances of a click: the head and its floors, fitted on what was shown and laid side by side.

python -m flows.clicks (--preset NAME | --config FILE.yaml) [--families head,lightgbm,logistic] [--set key=value ...]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flows.command import before_prefect

before_prefect(__name__)

from prefect import flow
from rich.console import Console

from nightloom.config import RunConfig, load_config, load_preset
from nightloom.errors import NightloomError
from nightloom.models.clicks.train import FAMILIES, chosen
from nightloom.report.clicks import shown
from nightloom.stage import Night
from nightloom.tracking import Tracking, run_tags
from tasks.clicks import compare_clicks, fit_clicks, prepare_clicks
from tasks.collect import collect
from tasks.progress import shown_on
from tasks.promote_clicks import HEAD, promote_clicks
from tasks.validate import validate


@flow(name="clicks", validate_parameters=True)
def clicks(config: RunConfig, names: list[str] | None = None) -> dict[str, Any]:
    """Fit click models one after the other, measure them on the same rows, and promote the head if it is as good as what serves.

    Args:
        config: the run's configuration.
        names: which families; all where none are named.

    Returns:
        `results` of each family, `markdown`, `gate` (what was decided of the head; None where it was not fitted) and `folder`.
    """
    night = Night.start(config, Path(os.environ.get("NIGHTLOOM_ROOT", "mlruns")))
    night = replace(night, night=f"{night.night}-clicks")
    collected = collect(night)
    with Tracking(night.root).night(night, run_tags(night, collected.figures["hash"])) as run:
        prepared = prepare_clicks(night, validate(night, collected))
        fitted = [fit_clicks(night, family, prepared) for family in names or FAMILIES]
        text, runs = compare_clicks(night, run, collected, fitted)
        gate = promote_clicks(night, collected, prepared, fitted, runs[HEAD]).figures["decision"] if HEAD in runs else None
    return {"results": [one.figures for one in fitted], "markdown": text, "gate": gate, "folder": str(night.folder)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit click models from the command line; gives the exit code: 0 all were measured, 1 a fault, 2 refused input."""
    parser = argparse.ArgumentParser(prog="python -m flows.clicks", description="Chances of a click: the head and its floors.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--preset", help="a preset that ships with Nightloom, e.g. ads-avazu")
    source.add_argument("--config", type=Path, help="your own YAML")
    parser.add_argument("--families", help=f"comma-separated, of {', '.join(FAMILIES)}; by default all")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="override, e.g. clicks.members=9")
    given = parser.parse_args(arguments)
    console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    try:
        config = load_preset(given.preset, given.overrides) if given.preset else load_config(given.config, given.overrides)
        with shown_on(console):
            result = clicks(config, chosen(given.families))
    except NightloomError as error:
        errors.print(f"{type(error).__name__}: {error}", markup=False, style="red", soft_wrap=True)
        return error.exit_code
    console.print(shown(config.name, result["results"]))
    if result["gate"]:
        console.print(f"The head: {result['gate']['decision']}. {' '.join(result['gate']['reasons'])}", soft_wrap=True)
    console.print(f"Table, results and calibration: {result['folder']}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
