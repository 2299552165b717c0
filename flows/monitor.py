"""The watch: drift of the events, quality and cost of the nights, nights that are missing. Trains nothing.

python -m flows.monitor (--preset NAME | --config FILE.yaml) [--set key=value ...]
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from flows.command import before_prefect, parser, run

command = parser("monitor", "Watch the nights of a recommender.")
given = before_prefect(__name__, command)  # a typo is refused before the imports below, which take seconds

from prefect import flow
from rich.console import Console

from nightloom.config import RunConfig
from tasks import monitor as tasks

ALARM = 3
"""Exit code where something rings."""


@flow(name="monitor", validate_parameters=True)
def monitor(config: RunConfig) -> dict[str, Any]:
    """Watch the newest snapshot and the past nights of a recommender.

    Args:
        config: the run's configuration.

    Returns:
        What rings, in words, and the page.
    """
    found, page = tasks.monitor(config, Path(os.environ.get("NIGHTLOOM_ROOT", "mlruns")).resolve())
    return {"alarms": list(found.alarms), "page": str(page)}


def main(given: Namespace) -> int:
    """Watch from the command line; gives the exit code: 0 nothing rings, 3 something does, 1 a fault, 2 refused input."""

    def show(result: dict[str, Any], console: Console) -> int:
        for line in result["alarms"] or ["Nothing unusual."]:
            console.print(line, markup=False, style="bold red" if result["alarms"] else "green", soft_wrap=True)
        console.print(result["page"], markup=False, soft_wrap=True)
        return ALARM if result["alarms"] else 0

    return run(lambda: monitor(given.config), show)


if __name__ == "__main__":
    sys.exit(main(given))
