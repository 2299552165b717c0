"""The check: what a night would say of the data, in seconds. Nothing is trained, and Prefect is not needed.

python -m flows.check (--preset NAME | --config FILE.yaml) [--set key=value ...]
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.command import before_prefect, parser, refused, source

command = parser("check", "Check the data of a config as a night would.")
given = before_prefect(__name__, command, server=False)  # a typo is refused before the imports below, which take seconds

from rich.console import Console

from expectations.run import check, read_checked
from nightloom.config import RunConfig
from nightloom.core.errors import InputError, NightloomError
from nightloom.core.shell import typed
from nightloom.data.collect import collect
from nightloom.data.preparation.prepare import prepare
from nightloom.data.tables.snapshot import read_snapshot
from nightloom.report.check import print_check
from nightloom.runs.stages import Night


def check_data(config: RunConfig, root: Path, console: Console) -> dict[str, Any]:
    """Collect, validate and prepare as a night does, into folders that no night reads.

    Args:
        config: the run's configuration.
        root: the mlruns folder; `checks/<name>/` gets the quarantine, the Data Docs and every rule's outcome.
        console: gets a line for each step.

    Returns:
        `checked` and `prepared`, the figures of these two stages, `notes` on the tables, `folder`, and `refused`: why nothing could
        be prepared, or None.

    Raises:
        InputError: the tables can not be read, or their contract is broken.
    """
    night = Night.start(config, root, run_directory=f"checks/{config.name}")
    snapshot = collect(config.name, config.data, night.root, lambda line: console.print(line, style="dim", markup=False, soft_wrap=True))
    shutil.rmtree(night.folder, ignore_errors=True)
    night.folder.mkdir(parents=True)
    found: dict[str, Any] = {"folder": str(night.folder), "prepared": None, "notes": snapshot.source.get("notes", []), "refused": None}
    found["checked"] = check(read_snapshot(snapshot.path, in_blocks=True), config, night.folder, night.last_rows(), datetime.now(UTC))
    with tempfile.TemporaryDirectory(prefix="nightloom-", dir=night.folder) as scratch:  # the next check deletes what a kill leaves
        try:
            tables, separator = read_checked(night.folder, in_blocks=True), config.data.tags_separator
            parts: dict[str, Any] = {"prepare": config.prepare, "evaluation": config.evaluation, "tags_separator": separator}
            found["prepared"] = prepare(tables, Path(scratch), **parts)
        except InputError as error:  # the contract holds all the same: what it found is shown first
            found["refused"] = str(error)
    return found


def main(given: Namespace) -> int:
    """Check from the command line; gives the exit code: 0 a night can run, 2 it would be refused, 1 a fault."""
    console, errors = Console(highlight=False, soft_wrap=True), Console(stderr=True, highlight=False)
    try:
        found = check_data(given.config, Path(os.environ.get("NIGHTLOOM_ROOT", "mlruns")), console)
    except NightloomError as error:
        return refused(error, errors)
    print_check(given.config, found, typed("nightloom", "night", *source(given)), console)
    return 2 if found["refused"] else 0


if __name__ == "__main__":
    sys.exit(main(given))
