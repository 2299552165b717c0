"""The transfer: a source domain's model carried over to a target, against learning there from scratch.

python -m flows.transfer --source office --target industrial [--shares 0.01 0.1 1] [--unrelated-users] [--shared-items] [--table FILE]
                        [--set key=value ...] [--source-set key=value ...]
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flows.command import before_prefect, parser, run, show_table
from nightloom.config import RunConfig, load_config, load_preset
from nightloom.experiments.arguments import checked_shares


def read(named: str, overrides: Sequence[str]) -> RunConfig:
    """A preset by its name, or a YAML file by its path."""
    return load_config(named, overrides) if named.endswith((".yaml", ".yml")) else load_preset(named, overrides)


def check(given: Namespace) -> None:
    """Read both configs and refuse shares that are none."""
    given.source, given.target = read(given.source, given.source_set), read(given.target, given.overrides)
    given.shares = checked_shares(given.shares)


command = parser("transfer", "Carry a model from one domain to another; --set overrides a key of the target.", config=False)
for name in ("source", "target"):
    command.add_argument(f"--{name}", required=True, metavar="PRESET|YAML", help=f"the {name} domain: a preset, or your own YAML")
command.add_argument("--shares", type=float, nargs="+", default=[0.01, 0.1, 1.0], help="of the target's users (0.01 0.1 1)")
command.add_argument("--unrelated-users", action="store_true", help="one user id in both domains does not mean one person")
command.add_argument("--shared-items", action="store_true", help="items of the same text in both domains are the same items")
command.add_argument("--source-set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the source")
command.add_argument("--table", type=Path, metavar="FILE", help="Markdown file for the table")
given = before_prefect(__name__, command, check)  # a typo is refused before the imports below, which take seconds

from prefect import flow

from nightloom.experiments.transfer import source_config
from nightloom.runs.provenance import run_tags
from nightloom.runs.stages import Night
from nightloom.runs.tracking import Tracking
from tasks.collect import collect
from tasks.load_pretrained import load_pretrained
from tasks.prepare import prepare
from tasks.transfer import learn_share, summarise, train_source
from tasks.validate import validate


@flow(name="transfer", validate_parameters=True)
def transfer(
    source: RunConfig,
    target: RunConfig,
    shares: Sequence[float] = (0.01, 0.1, 1.0),
    same_users: bool = True,
    shared_items: bool = False,
    table: Path | None = None,
) -> dict[str, Any]:
    """Train on the source, carry it over, learn from shares of the target's users, and compare; registers nothing.

    Args:
        source: the source domain's config; its data count, under temporal those before the target's validation. Model and schedule are
            the target's.
        target: the target domain's config; its first protocol counts.
        shares: of the target's users, from which every arm learns.
        same_users: whether one user id means one person in both domains; the target's are then left out of the source's training.
        shared_items: whether items of the same text are the same items, so that what was learned of them is carried over too.
        table: file that gets the table as Markdown.
    """
    name = f"{source.name[:24]}-to-{target.name[:24]}"
    night = Night.start(target.model_copy(update={"name": name}), Path(os.environ.get("NIGHTLOOM_ROOT", "mlruns")))
    there = replace(night, config=source_config(source, target, shared=shared_items), run_directory=f"nights/{name}/{night.night}/source")
    collected = collect(night)
    with Tracking(night.root).night(night, run_tags(night, collected.figures["hash"])) as run:
        prepared = prepare(night, validate(night, collected))
        pretrained = load_pretrained(night, prepared)
        source_prepared = prepare(there, validate(there, collect(there)))
        trained = train_source(there, source_prepared, load_pretrained(there, source_prepared), prepared, same_users, shared_items)
        learned = [learn_share(night, trained, prepared, pretrained, share, shared_items) for share in shares]
        return summarise(night, run, trained, learned, table)


def main(given: Namespace) -> int:
    """Run a transfer from the command line; gives the exit code: 0 ended well, 1 a fault, 2 refused input."""
    related = not given.unrelated_users
    return run(lambda: transfer(given.source, given.target, given.shares, related, given.shared_items, given.table), show_table)


if __name__ == "__main__":
    sys.exit(main(given))
