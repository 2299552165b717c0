"""The report in short, as Markdown, for the orchestrator's artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from nightloom.core.markup import code_markdown, plain_markdown
from nightloom.report import contract, words

QUOTED = ":/?#[]@!$&'()*+,;=%~"
"""What an address keeps as it is."""


def markdown(report: Mapping[str, Any]) -> str:
    """The decision and why, model and baselines, time per stage, and where to look next. What comes from data is escaped."""
    lines = [f"# {plain_markdown(words.headline(report))}", "", f"`{report['name']}`, night `{report['night']}`", ""]
    lines += [f"- {plain_markdown(reason)}" for reason in words.reasons(report)]
    for protocol in report["protocols"]:
        models = words.models(report, protocol)
        if not models:
            continue
        lines += ["", f"## Model and baselines, {words.split(protocol)}", ""]
        rows = [
            [f"**{plain_markdown(family)}**" if family == report["model"] else plain_markdown(family)]
            + [_cell(report, family, protocol, metric) for metric in words.MAIN_METRICS]
            for family in models
        ]
        if live := words.live(report, protocol):
            rows.append([plain_markdown(live[0]), *(words.number(live[1].get(metric)) for metric in words.MAIN_METRICS)])
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
        lines += ["", "## Left out and worth a look", "", *(f"- {plain_markdown(note)}" for note in notes)]
    if said := words.pictures(report):
        lines += ["", "## Pictures", "", plain_markdown(said)]
    lines += ["", "## Where to look next", ""]
    lines += [f"- {plain_markdown(name)}: {_address(value)}" for name, value in words.next_steps(report)]
    return "\n".join(lines) + "\n"


def _cell(report: Mapping[str, Any], family: str, protocol: str, metric: str) -> str:
    value = report["metrics"][family][protocol].get(metric)
    text = words.number(value)
    return f"**{text}**" if value is not None and value == words.best(report, protocol, metric) else text


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return ["| " + " | ".join(cells) + " |" for cells in (header, rule, *rows)]


def _address(value: str) -> str:
    """A link where it is one, else code."""
    if not value.startswith(("http://", "https://")):
        return code_markdown(value)
    return f"[{plain_markdown(value)}](<{quote(value, safe=QUOTED)}>)"
