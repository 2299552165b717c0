"""The summary of a night, for a terminal or a log file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from nightloom.report import contract, words

_STYLE = {
    "promoted": "bold green",
    "waits": "bold green",
    "rejected": "bold yellow",
    "dry_run": "bold yellow",
    "refused": "bold red",
    "disabled": "bold",
    "backfill": "bold",
}


def print_summary(report: Mapping[str, Any], console: Console) -> None:
    """Print what `build_report` gave: the decision and why, model and baselines, time, data, where to look next.

    Fits 80 columns. Where the console is no terminal, rich leaves the colours out.
    """
    console.print()
    console.print(f"Nightloom · {report['name']} · night {report['night']}", style="dim", markup=False, highlight=False)
    console.print(Text(words.headline(report), style=_STYLE[report["outcome"]]))
    for reason in words.reasons(report):
        console.print(_item(reason))
    if report["metrics"]:
        console.print()
        console.print(_against(report))
    for protocol in report["protocols"]:
        if words.models(report, protocol):
            console.print()
            console.print(_models(report, protocol))
            if said := words.asked(report, protocol):
                console.print(Text(said, style="dim"))
    console.print()
    if report["stages"]:
        console.print(Text(f"Time: {words.effort(report)}"), soft_wrap=True)
    console.print(Text(_quarantine(report)))
    for said in words.data_notes(report):
        console.print(Text(f"Data: {said}"), soft_wrap=True)
    if report["checks"]:
        console.print(Text(f"Data contract: {contract.summary(report['checks'])}"), soft_wrap=True)
    if said := words.changed(report):
        console.print(Text(said))
    if said := words.pictures(report):
        console.print(Text(f"Pictures: {said}"), soft_wrap=True)
    _print_next(words.next_steps(report), console)
    if report["licence"]:
        console.print()
        console.print(Text(report["licence"], style="dim"))


def print_unchanged(reason: str, latest: Path, again: str, console: Console) -> None:
    """Say why nothing was done and where the last night's report is.

    Args:
        reason: what is as it was, in words.
        latest: folder of the last finished night.
        again: the command that trains all the same.
        console: where to print.
    """
    console.print()
    console.print(Text("Nothing to do: nothing changed since the last night", style="bold"))
    console.print(_item(reason))
    _print_next([("Report", str(latest / "report.html")), ("Train anyway", again)], console)


def _item(text: str) -> Padding:
    grid = Table.grid(padding=(0, 1))
    grid.add_row("-", Text(text))
    return Padding(grid, (0, 0, 0, 2))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    return table


def _against(report: Mapping[str, Any]) -> Table:
    gate, protocol, first = report["gate"], report["protocols"][0], report["model"]
    table = _table(f"{words.metric_label(gate['metric'])}, {words.split(protocol)}", "", "mean", f"{words.confidence(report)} interval")
    for role, family in (("challenger", first), ("champion", "champion")):
        value = gate.get(role)
        if value is None:
            value = report["metrics"].get(family, {}).get(protocol, {}).get(gate["metric"])
        if value is not None:
            table.add_row(role, words.number(value), words.span(words.interval_of(report, family, protocol, gate["metric"])))
    if words.has_champion(report):
        table.add_row("difference", words.signed(gate["difference"]), words.span(gate["interval"], sign=True))
    return table


def _models(report: Mapping[str, Any], protocol: str) -> Table:
    table = _table(f"Model and baselines, {words.split(protocol)}", "", *map(words.metric_label, words.MAIN_METRICS))
    for family in words.models(report, protocol):
        cells = []
        for metric in words.MAIN_METRICS:
            value = report["metrics"][family][protocol].get(metric)
            is_best = value is not None and value == words.best(report, protocol, metric)
            cells.append(Text(words.number(value) + (" *" if is_best else "  "), style="bold" if is_best else ""))
        table.add_row(Text(family), *cells)
    if live := words.live(report, protocol):
        table.add_row(Text(live[0]), *(words.number(live[1].get(metric)) + "  " for metric in words.MAIN_METRICS))
    return table


def _quarantine(report: Mapping[str, Any]) -> str:
    counts = {table: rows for table, rows in report["quarantined"].items() if rows}
    if not counts:
        return "Quarantine: no row was set aside." if report["quarantined"] else "Quarantine: the tables were not checked."
    return "Quarantine: " + ", ".join(f"{rows:,} rows of {table}" for table, rows in counts.items())


def _print_next(steps: list[tuple[str, str]], console: Console) -> None:
    """One line each, never wrapped, so that a path can be copied whole."""
    console.print()
    console.print(Text("Where to look next", style="bold"))
    width = max(len(name) for name, _ in steps)
    for name, value in steps:
        console.print(Text.assemble(("  " + name.ljust(width + 2), "dim"), value), soft_wrap=True)
