"""What `nightloom check` says of the data, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nightloom.config import RunConfig
from nightloom.core.streaming import STREAMING
from nightloom.promotion.gate_words import FEWEST_USERS
from nightloom.report import words

REASONS = 5
"""Most reasons of a table that are listed."""
FEW_USERS = 200
"""Below so many test users a difference between two models must be large to be seen."""
ONE_SIDED = 0.99
"""From this share of positive events on, ratings are probably not yet told apart."""


def print_check(config: RunConfig, found: Mapping[str, Any], night: str, console: Console) -> None:
    """Print counts, rows set aside with their reasons, label balance, split sizes, and what to do.

    Args:
        config: the run's configuration.
        found: `checked` and `prepared`, the figures of these stages (the second None where it was refused), `notes` on the tables,
            `refused` and `folder`.
        night: the command that runs a night with this config.
        console: where to print.
    """
    checked, prepared = found["checked"], found["prepared"]
    console.print()
    if found["refused"]:
        console.print(Text("A night would be refused", style="bold red"))
        console.print(Text(found["refused"]), soft_wrap=True)
    else:
        console.print(Text("The data are fit for a night", style="bold green"))
    console.print()
    console.print(_rows(checked))
    for table, reasons in checked["reasons"].items():
        for reason, count in list(reasons.items())[:REASONS]:
            console.print(Text(f"  {table}: {count:,} rows set aside: {reason}"), soft_wrap=True)
    first, last = (str(checked[key])[:10] if isinstance(checked[key], str) else f"{checked[key]:,}" for key in ("oldest", "newest"))
    if not config.data.random_order:
        console.print(f"Events from {first} to {last}{'' if isinstance(checked['newest'], str) else ' (an order, no time)'}")
    console.print(f"Labels: {checked['positive_share']:.1%} of the events are positive ({_label_rule(config)})")
    if prepared:
        _print_parts(prepared, console)
    if hints := list(_hints(config, found)):
        console.print()
        console.print(Text("What to do", style="bold"))
        for hint in hints:
            console.print(Text(f"  - {hint}"), soft_wrap=True)
    if not found["refused"]:
        console.print()
        console.print(Text(f"Next: {night}"), soft_wrap=True)


def _rows(checked: Mapping[str, Any]) -> Table:
    table = Table("table", box=None, pad_edge=False, header_style="dim")
    for heading in ("good rows", "set aside", "share"):
        table.add_column(heading, justify="right")
    for name, rows in checked["rows"].items():
        table.add_row(name, f"{rows:,}", f"{checked['quarantined'][name]:,}", f"{checked['bad_share'][name]:.2%}")
    return table


def _print_parts(prepared: Mapping[str, Any], console: Console) -> None:
    console.print(f"To learn from: {prepared['events']:,} events of {prepared['users']:,} users on {prepared['items']:,} items")
    for reason, count in prepared["removed"].items():
        if count:
            console.print(f"  {count:,} events left out, {reason}", soft_wrap=True)
    for protocol, parts in prepared["parts"].items():
        sizes = ", ".join(f"{parts[part]:,} {part}" for part in ("train", "validation", "test"))
        said = "Streaming queries" if protocol == STREAMING else f"{words.spoken(protocol).capitalize()} split"
        many = f", asked about {parts['test_queries']:,} events" if parts["test_queries"] != parts["test_users"] else ""
        console.print(f"{said}: {sizes} (positive events); {parts['test_users']:,} test users{many}", soft_wrap=True)


def _label_rule(config: RunConfig) -> str:
    rules = config.prepare
    said = [f"events named {', '.join(rules.positive_events)}"] if rules.positive_events else []
    said += [f"value of at least {rules.positive_min_value:g}"] if rules.positive_min_value is not None else []
    return ", ".join(said) or "all count: neither prepare.positive_events nor positive_min_value is set"


def _hints(config: RunConfig, found: Mapping[str, Any]) -> Iterator[str]:
    checked, prepared = found["checked"], found["prepared"]
    if any(checked["quarantined"].values()):
        yield f"look at the rows set aside, each with its reason: {found['folder']}/quarantine/"
    yield from (*checked["warnings"], *found["notes"])
    values = "value" in config.data.columns.get("events", {})
    if values and config.prepare.positive_min_value is None and checked["positive_share"] >= ONE_SIDED:
        yield "if low values mean dislike, say from which on an event is positive: prepare.positive_min_value"
    if prepared is None:
        return
    users = next(iter(prepared["parts"].values()))["test_users"]
    if users < FEWEST_USERS:
        yield f"{users:,} test users are too few to judge a model by, so a night would promote none: more events are needed"
    elif users < FEW_USERS:
        yield f"{users:,} test users tell two models apart only where they differ much: more events or a larger prepare.test_share help"
    if config.data.items is None and config.data.set is None:
        yield "there is no items table: with titles (data.items) the language model knows the items, new ones too"
