"""The night: validate, load pretrained, fine-tune, evaluate, explain, promote.

python -m flows.nightly (--preset NAME | --config FILE.yaml) [--force | --as-of 2026-11-01] [--set key=value ...]
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from datetime import date
from pathlib import Path
from typing import Annotated, Any

from flows.command import before_prefect, day, ends_with, parser, run, source
from flows.form import NightForm

command = parser("nightly", "Run one night.")
how = command.add_mutually_exclusive_group()
how.add_argument("--force", action="store_true", help="train even if nothing has changed")
how.add_argument("--as-of", type=day, metavar="DATE", help="as a night of that day would have; changes nothing that serves")
given = before_prefect(__name__, command)  # a typo is refused before the imports below, which take seconds

from prefect import State, flow
from prefect.states import Completed
from pydantic import Field
from rich.console import Console

from nightloom.config import RunConfig, load_preset
from nightloom.core.shell import typed
from nightloom.report.console import print_summary, print_unchanged
from nightloom.runs.processes import user
from nightloom.runs.provenance import run_tags
from nightloom.runs.stages import Night
from nightloom.runs.tracking import Tracking
from tasks.approval import ask, asks, who_started
from tasks.collect import collect
from tasks.evaluate import evaluate
from tasks.explain import explain
from tasks.fine_tune import fine_tune
from tasks.load_pretrained import load_pretrained
from tasks.prepare import prepare
from tasks.progress import name_run, named_after
from tasks.promote import promote
from tasks.report import log_families, refusals_reported, report, unchanged
from tasks.validate import validate


@flow(name="nightly", validate_parameters=True)
def nightly(
    force: bool = False,
    config: Annotated[RunConfig | None, NightForm()] = None,
    started_by: Annotated[str, Field(max_length=100)] = "",
    as_of: date | None = None,
) -> dict[str, Any] | State[dict[str, Any]]:
    """Retrain, and promote the result if it is at least as good as what serves.

    Args:
        force: Train even if nothing has changed since the last night.
        config: The run's configuration. Empty: the preset movies-small.
        started_by: Your name, where you start this by hand. With promotion.mode review another person has to approve the result.
        as_of: A past day: train and evaluate as a night of that day would have. Nothing is registered, and the champion stays.

    Returns:
        The report. Where nothing has changed since the last night, a state that says so, whose data has the key `unchanged`.
    """
    root, by = Path(os.environ.get("NIGHTLOOM_ROOT", "mlruns")), who_started(started_by)
    config = config or load_preset("movies-small")
    night = Night.past(config, root, as_of, started_by=by) if as_of else Night.start(config, root, force=force, started_by=by)
    name_run(night)
    collected = collect(night)
    if same := unchanged(night, collected):
        name_run(night, "unchanged")
        found = ends_with({"unchanged": same, "latest": str(night.latest.resolve())})
        return Completed(name="Unchanged", message=f"Nothing to do: {same}.", data=found)
    tracked = Tracking(night.root).night(night, run_tags(night, collected.figures["hash"]))
    with tracked as run, refusals_reported(night, run, collected):
        checked = validate(night, collected)
        prepared = prepare(night, checked)
        pretrained = load_pretrained(night, prepared)
        tuned = fine_tune(night, run, collected, prepared, pretrained)
        promoted = None
        while promoted is None:  # where another version became champion meanwhile, it is compared with that one
            explained = explain(night, prepared, tuned)
            evaluated = evaluate(night, prepared, pretrained, tuned)
            model_run = log_families(night, run, collected, tuned, evaluated)
            promoted = promote(night, collected, tuned, evaluated, explained, model_run)
        stages = [collected, checked, prepared, pretrained, tuned, evaluated, explained, promoted]
        content = ends_with(report(night, run, stages))
    if asks(night, content) and (answered := ask(night, promoted)):
        content = ends_with(report(night, run, [*stages[:-1], answered]))
    return content


def main(given: Namespace) -> int:
    """Run one night from the command line; gives the exit code: 0 ended well, 1 a fault, 2 refused input."""
    again = typed("nightloom", "night", *source(given), "--force")

    def work() -> Any:
        # Not by Prefect's own `tags`: tasks would have them too, and ask the server before each for a place under limits by tag.
        with named_after(f"preset:{given.preset}" if given.preset else f"config:{given.config.name}"):
            # Who types in a terminal is a person; what cron starts has none.
            return nightly(force=given.force, config=given.config, started_by=user() if sys.stdin.isatty() else "", as_of=given.as_of)

    def show(result: dict[str, Any], console: Console) -> None:
        if "unchanged" in result:
            print_unchanged(result["unchanged"], Path(result["latest"]), again, console)
        else:
            print_summary(result, console)

    return run(work, show)


if __name__ == "__main__":
    sys.exit(main(given))
