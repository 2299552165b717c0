"""What the report says in plain words, shared by the console, HTML and Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nightloom.core.asked import asked as count
from nightloom.core.asked import told
from nightloom.core.shell import typed
from nightloom.core.streaming import STREAMING

_TITLES = {"hr": "HR", "ndcg": "NDCG", "mrr": "MRR", "gini": "Exposure Gini", "auc": "AUC", "arp": "ARP", "aplt": "APLT"}
DASH = "\N{EN DASH}"
"""Shown where there is no figure."""
MAIN_METRICS = ("hr_at_10", "ndcg_at_10", "mrr_at_10")
"""The columns of every table of models."""


def metric_label(name: str) -> str:
    """`ndcg_at_10` -> `NDCG@10`; other names in words."""
    stem, mark, k = name.partition("_at_")
    label = _TITLES.get(stem, stem.replace("_", " ").capitalize())
    return f"{label}@{k}" if mark else label


def spoken(name: str) -> str:
    """`fine_tune` -> `fine tune`."""
    return name.replace("_", " ")


def split(protocol: str) -> str:
    """`streaming` -> `streaming queries`, `temporal` -> `temporal split`, `leave_one_out` -> `leave-one-out split`."""
    if protocol == STREAMING:
        return "streaming queries"
    return f"{protocol.replace('_', '-')} split"


def asked(report: Mapping[str, Any], protocol: str) -> str:
    """How many were asked and how many of them had no history; empty where nothing was measured."""
    found = report["asked"].get(protocol)
    return told(found) if found else ""


def newcomers(report: Mapping[str, Any], protocol: str) -> str:
    """What users without a history are shown, and what drawing their lists costs; empty where none were asked."""
    found = report["newcomers"].get(protocol)
    if not found:
        return ""
    off, on = found["off"], found["on"]
    said = f"{found['users']:,} users without a history are shown {off['items']:,} different items, NDCG@10 {off['ndcg_at_10']:.4f}"
    if not found["temperature"]:
        return f"{said}; `model.exploration` would vary their lists."
    cost = f"{signed(found['difference'])} ({span((found['low'], found['high']), sign=True)})"
    return f"{said}; drawn for each user and day, at temperature {found['temperature']:g}, {on['items']:,} items, NDCG@10 {cost}."


def measured_on(report: Mapping[str, Any], protocol: str) -> str:
    """What means are over, for example `12,345 events of 301 users`."""
    found = report["asked"].get(protocol)
    return count(found["test_users"], found["test_queries"]) if found else "held-out users"


def live(report: Mapping[str, Any], protocol: str) -> tuple[str, Mapping[str, Any]] | None:
    """Name and metrics of the row of the model whose scorers are kept up to date; None where it was not measured."""
    found = report["live"].get(protocol)
    return (f"{report['model']}, scorers kept up to date", found["metrics"]) if found else None


def number(value: float | None, digits: int = 4) -> str:
    """A metric with fixed digits, or a dash where there is none."""
    return DASH if value is None else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 4) -> str:
    """A difference with its sign."""
    return DASH if value is None else f"{value:+.{digits}f}"


def duration(seconds: float | None) -> str:
    """Seconds in words: `0.4 s`, `12 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds is None:
        return DASH
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def moment(iso: str) -> str:
    """`2026-11-24T02:03:04+00:00` -> `24 November 2026, 02:03 UTC`."""
    at = datetime.fromisoformat(iso).astimezone(UTC)
    return f"{at.day} {at:%B %Y, %H:%M} UTC"


def period(report: Mapping[str, Any]) -> str:
    """`24 November 2025 to 23 November 2026`; empty where the tables were not checked or events have no time."""
    ends = report["period"]
    if not ends or not all(isinstance(end, str) for end in ends):
        return ""
    return " to ".join(moment(end).partition(",")[0] for end in ends)


def total_seconds(report: Mapping[str, Any]) -> float:
    """Wall time of the stages that this night made; reused ones cost nothing."""
    return sum(stage["seconds"] or 0.0 for stage in report["stages"].values() if stage["status"] == "done")


def peak_mb(report: Mapping[str, Any]) -> float | None:
    """Highest memory of the stages that this night made, in MiB."""
    return max((stage["peak_mb"] for stage in report["stages"].values() if stage["status"] == "done"), default=None)


def effort(report: Mapping[str, Any]) -> str:
    """Time and memory of the stages that this night made: `2 min 50 s (fine tune 2 min 23 s), peak memory 0.9 GiB, 2 stages reused`."""
    made = {name: stage["seconds"] for name, stage in report["stages"].items() if stage["status"] == "done" and stage["seconds"]}
    said = duration(total_seconds(report))
    if len(made) > 1:
        longest = max(made, key=lambda name: made[name])
        said += f" ({spoken(longest)} {duration(made[longest])})"
    if peak := peak_mb(report):
        said += f", peak memory {peak / 1024:.1f} GiB"
    reused = sum(stage["status"] == "reused" for stage in report["stages"].values())
    return said + (f", {reused} stage{'s' if reused > 1 else ''} reused" if reused else "")


def headline(report: Mapping[str, Any]) -> str:
    """What happened, in one line."""
    versions, gate = report["versions"], report["gate"]
    champion = _version(versions["champion"], "the champion")
    match report["outcome"]:
        case "promoted":
            first = versions["previous"] is None and not has_champion(report)
            return f"Promoted: {champion} is the {'first' if first else 'new'} champion{_approved(report)}"
        case "waits":
            waits = f"Passed: {_version(versions['challenger'], 'the challenger')} waits for a second person to type"
            return f"{waits} {typed('nightloom', 'approve', report['name'])}"
        case "rejected":
            stays = f"{champion} stays champion" if versions["champion"] is not None else "there is still no champion"
            if report.get("answer"):
                return f"Declined by {report['answer']['by']}: {stays}"
            if gate.get("held"):
                return f"Held: nothing is promoted now, {stays}"
            return f"Rejected: the challenger did not pass the gate, {stays}"
        case "dry_run":
            would = "would be promoted" if gate["decision"] == "promote" else "would be rejected"
            return f"Dry run: the challenger {would}; nothing was registered"
        case "backfill":
            return f"Backfill of {report['as_of']}: trained and evaluated as on that day; nothing was registered"
        case "refused":
            return f"Stopped at {spoken(report['refused']['stage'])}: the input was refused and nothing was changed"
        case _:
            return "Trained and evaluated; promotion is disabled, so nothing was registered"


def _approved(report: Mapping[str, Any]) -> str:
    """By whom, where a second person was asked; reports of before do not say."""
    by = (report.get("answer") or {}).get("by")
    return f", approved by {by}" if by else ""


def reasons(report: Mapping[str, Any]) -> list[str]:
    """Why, in sentences: the gate's reasons with metrics under their usual names, or why the input was refused."""
    if report["refused"]:
        return [report["refused"]["message"]]
    metric = report["gate"]["metric"]
    return [reason.replace(metric, metric_label(metric)) for reason in report["gate"]["reasons"]]


def span(interval: Sequence[float] | None, digits: int = 4, *, sign: bool = False) -> str:
    """An interval as `0.1021 to 0.1187`; empty where there is none."""
    if not interval:
        return ""
    show = signed if sign else number
    return f"{show(interval[0], digits)} to {show(interval[1], digits)}"


def interval_of(report: Mapping[str, Any], family: str, protocol: str, metric: str) -> Sequence[float] | None:
    """The interval of one family's mean, where it was measured."""
    found: Sequence[float] | None = report["intervals"].get(family, {}).get(protocol, {}).get(metric)
    return found


def has_champion(report: Mapping[str, Any]) -> bool:
    """Whether the gate had a champion to compare the challenger with."""
    return report["gate"]["difference"] is not None


def confidence(report: Mapping[str, Any]) -> str:
    """Confidence of the gate's intervals, for example `95 %`."""
    return f"{100 * report['config']['promotion']['confidence']:g} %"


def models(report: Mapping[str, Any], protocol: str) -> list[str]:
    """Families measured under a protocol: tonight's model, the champion, the anchor, then the baselines by the gate's metric."""
    measured = [family for family, by_protocol in report["metrics"].items() if protocol in by_protocol]
    metric, first = report["gate"]["metric"], [report["model"], "champion", "anchor"]

    def order(family: str) -> tuple[int, float]:
        place = first.index(family) if family in first else len(first)
        return place, -(report["metrics"][family][protocol].get(metric) or 0.0)

    return sorted(measured, key=order)


def best(report: Mapping[str, Any], protocol: str, metric: str) -> float | None:
    """Highest value of a metric over all models under a protocol."""
    values = [report["metrics"][family][protocol].get(metric) for family in models(report, protocol)]
    return max((value for value in values if value is not None), default=None)


def next_steps(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(what, path, address or command) pairs: where to look next."""
    links: dict[str, str] = {key: value for key, value in report["links"].items() if value}
    folder = Path(links.pop("folder"))
    links.pop("data_docs", None)  # pages that need internet; the report itself shows the rules
    named = {
        "mlflow_url": "MLflow run",
        "mlflow_runs": "MLflow runs",
        "mlflow_run_id": "MLflow run id",
        "prefect_url": "Prefect run",
    }
    if "mlflow_url" in links:
        links.pop("mlflow_run_id", None)
    steps = [("Report", str(folder / "report.html"))]
    if any(report["quarantined"].values()):
        steps.append(("Rows set aside", str(folder / "quarantine")))
    steps += [(named.get(key, spoken(key).capitalize()), value) for key, value in links.items()]
    others = [family for family in models(report, report["protocols"][0]) if family != report["model"]]
    if others:
        tonight = f"{report['name']}/{folder.name}"
        steps.append(("Compare", typed("nightloom", "compare", tonight, tonight, "--family-b", others[0])))
    steps.append(("Both UIs", "make ui"))
    return steps


def _version(version: Any, otherwise: str) -> str:
    return otherwise if version is None else f"version {version}"


def data_notes(report: Mapping[str, Any]) -> list[str]:
    """What cleaning left out, by reason, and what a person should know of the tables; a night that was refused may have neither."""
    removed = [f"{count:,} events left out, {reason}" for reason, count in report.get("removed", {}).items() if count]
    return removed + list(report.get("notes", []))


def pictures(report: Mapping[str, Any]) -> str:
    """How many items have a picture and which can not be read; empty where the catalogue has no image column."""
    found = report["images"]
    if not found:
        return ""
    said = f"{found['with_image']:,} of {found['items']:,} items have a picture"
    if not found["unreadable"]:
        return said + "."
    return f"{said}; {found['unreadable']:,} pictures can not be read, for example {found['examples'][0]}. All: unreadable_images.csv."


def changed(report: Mapping[str, Any]) -> str:
    """How much the recommendations differ from the champion's, over all that was asked; empty without a champion."""
    found = report["sample_lists"]
    if found.get("shared_at_10") is None:
        return ""
    return (
        f"Over all {measured_on(report, found['protocol'])}, {found['shared_at_10']:.1f} of the first ten items are in both lists on "
        "average, and "
        f"{100 * found['same_first']:.0f} % of the lists begin with the same item."
    )
