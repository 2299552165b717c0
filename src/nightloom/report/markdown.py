"""The report in short, as Markdown, for the orchestrator's artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nightloom.report import contract, words


def markdown(report: Mapping[str, Any]) -> str:
    """The decision and why, model and baselines, time per stage, and where to look next."""
    lines = [f"# {words.headline(report)}", "", f"`{report['name']}`, night `{report['night']}`", ""]
    lines += [f"- {_safe(reason)}" for reason in words.reasons(report)]
    for protocol in report["protocols"]:
        models = words.models(report, protocol)
        if not models:
            continue
        lines += ["", f"## Model and baselines, {words.split(protocol)}", ""]
        rows = [
            [f"**{_safe(family)}**" if family == report["model"] else _safe(family)]
            + [_cell(report, family, protocol, metric) for metric in words.MAIN_METRICS]
            for family in models
        ]
        if live := words.live(report, protocol):
            rows.append([_safe(live[0]), *(words.number(live[1].get(metric)) for metric in words.MAIN_METRICS)])
        lines += _table(["Model", *map(words.metric_label, words.MAIN_METRICS)], rows)
        if said := words.asked(report, protocol):
            lines += ["", said]
    if report["stages"]:
        lines += ["", "## Stages", ""]
        lines += _table(
            ["Stage", "Time", "Peak MiB", "Status"],
            [
                [words.spoken(name), words.duration(stage["seconds"]), words.number(stage["peak_mb"], 0), stage["status"]]
                for name, stage in report["stages"].items()
            ],
        )
    if report["checks"]:
        lines += ["", "## Data contract", "", contract.summary(report["checks"])]
    set_aside = {table: rows for table, rows in report["quarantined"].items() if rows}
    if set_aside:
        lines += ["", "## Quarantine", "", *_table(["Table", "Rows"], [[table, f"{rows:,}"] for table, rows in set_aside.items()])]
    if notes := words.data_notes(report):
        lines += ["", "## Left out and worth a look", "", *(f"- {_safe(note)}" for note in notes)]
    if said := words.pictures(report):
        lines += ["", "## Pictures", "", said]
    lines += ["", "## Where to look next", ""]
    lines += [f"- {name}: {_address(value)}" for name, value in words.next_steps(report)]
    return "\n".join(lines) + "\n"


def _cell(report: Mapping[str, Any], family: str, protocol: str, metric: str) -> str:
    value = report["metrics"][family][protocol].get(metric)
    text = words.number(value)
    return f"**{text}**" if value is not None and value == words.best(report, protocol, metric) else text


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return ["| " + " | ".join(cells) + " |" for cells in (header, rule, *rows)]


def _safe(text: str) -> str:
    """Text for a list or a table cell: on one line, with no cell separator in it."""
    return " ".join(text.split()).replace("|", "\\|")


def _address(value: str) -> str:
    return f"[{value}]({value})" if value.startswith(("http://", "https://")) else f"`{value}`"
