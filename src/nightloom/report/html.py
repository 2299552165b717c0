"""The report as one HTML file that needs nothing else: styles and figures are inside, nothing is fetched."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from nightloom.report import charts, contract, figures, glossary, item_map, parts, trade_off, words

TABLE = (*words.MAIN_METRICS, "recall_at_10", "coverage_at_10", "novelty_at_10", "popularity_bias_at_10")
"""Columns of the table of models, those that were measured."""
RANKING = frozenset((*words.MAIN_METRICS, "recall_at_10", "coverage_at_10"))
"""Columns of which more is always better, so that the best can be marked."""
SHOWN_EXPLANATIONS = 4
FILES = (
    ("report.json", "This report as data"),
    ("model_card.md", "The card of tonight's model"),
    ("data_card.md", "The card of tonight's data"),
    ("per_user.parquet", "The rank of every held-out item"),
    ("checks.json", "Every rule and what it found"),
    ("quarantine", "Rows that were set aside, with their reasons"),
    ("unreadable_images.csv", "Pictures that can not be read"),
    ("manifests", "What each stage read and wrote"),
    ("data_docs/index.html", "Great Expectations' own pages (need internet)"),
)
"""What lies beside the report, and what it is."""


def render_html(report: Mapping[str, Any], plots: Mapping[str, Path], folder: Path | None = None) -> str:
    """Write the page that is read.

    Args:
        report: what `build_report` gave.
        plots: stem of a file's name -> PNG file, from `figures.shown`; each becomes part of the page.
        folder: where the page will lie; files that are there are linked. None: the page stands alone and links to no file.

    Returns:
        The whole HTML document.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "label": words.metric_label,
        "anchor": glossary.anchor_of,
        "spoken": words.spoken,
        "split": words.split,
        "asked": partial(words.asked, report),
        "newcomers": partial(words.newcomers, report),
        "measured_on": partial(words.measured_on, report),
        "number": words.number,
        "signed": words.signed,
        "duration": words.duration,
        "moment": words.moment,
        "started": parts.started,
        "reranked": parts.reranked,
        "penalised": parts.penalised,
        "labelled": parts.labelled,
        "given_away": parts.given_away,
        "span": words.span,
        "inline": _data_uri,
    }
    return environment.get_template("report.html.j2").render(
        report=report,
        headline=words.headline(report),
        reasons=words.reasons(report),
        confidence=words.confidence(report),
        tiles=_tiles(report),
        bars=charts.model_bars(report),
        difference=charts.difference(report),
        changes=report["sample_lists"].get("users", []),
        changes_said=words.changed(report),
        movers=parts.movers(report),
        tables=[_table(report, protocol) for protocol in report["protocols"] if words.models(report, protocol)],
        slices=_slices(report),
        curves=charts.curves(report),
        trade_offs=trade_off.drawn(report),
        weights={protocol: parts.fusion_weights(found) for protocol, found in report["training"].items()},
        explanations=_explanations(report),
        votes=parts.votes(report),
        maps=item_map.item_maps(report),
        map_legend=item_map.legend(report),
        pictures=words.pictures(report),
        data_notes=words.data_notes(report),
        period=words.period(report),
        rules=contract.rules(report["checks"]),
        rules_said=contract.summary(report["checks"]),
        verdicts=contract.VERDICTS,
        stages=charts.stage_bars(report),
        files=[(name, said) for name, said in FILES if folder is not None and (folder / name).exists()],
        next_steps=words.next_steps(report),
        glossary=glossary.GLOSSARY,
        config=json.dumps(report["config"], indent=2, ensure_ascii=False),
        comparison_figures=figures.of_kind(plots, "champion"),
        reason_figures=figures.of_kind(plots, "reasons_summary", *figures.SHAP),
        part_figures=figures.of_kind(plots, "calibration", "calibration_of_labels"),
    )


def _tiles(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(label, figure, note): what a reader looks for first."""
    gate, protocol = report["gate"], report["protocols"][0]
    label, tiles = words.metric_label(gate["metric"]), []
    for family, role in ((report["model"], "challenger"), ("champion", "champion")):
        value = gate.get(role)
        if value is None:
            value = report["metrics"].get(family, {}).get(protocol, {}).get(gate["metric"])
        if value is not None:
            tiles.append((f"{role.capitalize()}, {label}", words.number(value), words.span(charts.gate_interval(report, family))))
    if words.has_champion(report):
        note = f"{words.confidence(report)}: {words.span(gate['interval'], sign=True)}"
        tiles.append(("Difference", words.signed(gate["difference"]), note))
    if gate.get("users"):
        queries = gate.get("queries") or gate["users"]
        if queries == gate["users"]:
            tiles.append(("Held-out users", f"{gate['users']:,}", words.split(protocol)))
        else:
            tiles.append(("Events", f"{queries:,}", f"of {gate['users']:,} users, {words.split(protocol)}"))
    reused = sum(stage["status"] == "reused" for stage in report["stages"].values())
    peak = words.peak_mb(report)
    note = f"{reused} stage{'s' if reused > 1 else ''} reused" if reused else "no stage reused"
    tiles.append(("Time", words.duration(words.total_seconds(report)), note))
    if peak:
        tiles.append(("Peak memory", f"{peak / 1024:.1f} GiB", "child processes included"))
    return tiles


def _table(report: Mapping[str, Any], protocol: str) -> dict[str, Any]:
    measured = {family: report["metrics"][family][protocol] for family in words.models(report, protocol)}
    columns = [metric for metric in TABLE if any(metric in found for found in measured.values())]
    best = {metric: words.best(report, protocol, metric) for metric in columns if metric in RANKING}
    return {
        "protocol": protocol,
        "columns": columns,
        "best": best,
        "rows": measured,
        "live": words.live(report, protocol),
        "all": sorted({metric for found in measured.values() for metric in found}),
    }


def _slices(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """The model beside the champion, or beside the best baseline where there is no champion, on every slice."""
    protocol, metric = report["protocols"][0], report["gate"]["metric"]
    mine = report["slices"].get(report["model"], {}).get(protocol)
    if not mine:
        return None
    other = next((family for family in words.models(report, protocol) if family != report["model"]), None)
    its = report["slices"].get(other, {}).get(protocol, {})
    vetoes = set(report["gate"].get("guards") or ()) if words.has_champion(report) else set()
    rows = [
        {size: found.get(size) for size in ("users", "events")}
        | {"name": name, "mine": found.get(metric), "other": its.get(name, {}).get(metric), "veto": name in vetoes}
        for name, found in mine.items()
    ]
    longest = max((value for row in rows for value in (row["mine"], row["other"]) if value), default=1.0)
    return {"rows": rows, "metric": metric, "model": report["model"], "other": other, "scale": 100 / longest}


def _explanations(report: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The explanations that are shown, those of the users whose lists are shown first."""
    listed = {user["user_id"] for user in report["sample_lists"].get("users", [])}
    sample = report["explanations"].get("sample", [])
    return sorted(sample, key=lambda one: one["user_id"] not in listed)[:SHOWN_EXPLANATIONS]


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
