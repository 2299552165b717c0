"""What the report says in plain words, shared by the console, HTML and Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_TITLES = {"hr": "HR", "ndcg": "NDCG", "mrr": "MRR"}
DASH = "\N{EN DASH}"
"""Stands where there is no figure."""
MAIN_METRICS = ("hr_at_10", "ndcg_at_10", "mrr_at_10")
"""The columns of the families table."""


def metric_label(name: str) -> str:
    """`ndcg_at_10` -> `NDCG@10`; other names in words."""
    stem, mark, k = name.partition("_at_")
    label = _TITLES.get(stem, stem.replace("_", " ").capitalize())
    return f"{label}@{k}" if mark else label


def spoken(name: str) -> str:
    """`leave_one_out` -> `leave one out`."""
    return name.replace("_", " ")


def number(value: float | None, digits: int = 4) -> str:
    """A metric with fixed digits, or a dash where there is none."""
    return DASH if value is None else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 4) -> str:
    """A difference with its sign."""
    return DASH if value is None else f"{value:+.{digits}f}"


def duration(seconds: float | None) -> str:
    """Seconds as a person says them: `0.4 s`, `12 s`, `3 min 05 s`, `2 h 10 min`."""
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


def total_seconds(report: Mapping[str, Any]) -> float:
    """Wall time of the stages that this night made; reused ones cost nothing."""
    return sum(stage["seconds"] or 0.0 for stage in report["stages"].values() if stage["status"] == "done")


def peak_mb(report: Mapping[str, Any]) -> float | None:
    """Highest memory of the stages that this night made, in MiB."""
    return max((stage["peak_mb"] for stage in report["stages"].values() if stage["status"] == "done"), default=None)


def headline(report: Mapping[str, Any]) -> str:
    """What happened, in one line."""
    versions, gate = report["versions"], report["gate"]
    champion = _version(versions["champion"], "the champion")
    match report["outcome"]:
        case "promoted":
            first = versions["previous"] is None and not has_champion(report)
            return f"Promoted: {champion} is the {'first' if first else 'new'} champion"
        case "rejected":
            stays = f"{champion} stays champion" if versions["champion"] is not None else "there is still no champion"
            return f"Rejected: the challenger did not pass the gate, {stays}"
        case "dry_run":
            would = "would be promoted" if gate["decision"] == "promote" else "would be rejected"
            return f"Dry run: the challenger {would}; nothing was registered"
        case "refused":
            return f"Stopped at {spoken(report['refused']['stage'])}: the input was refused and nothing was changed"
        case _:
            return "Trained and evaluated; promotion is disabled, so nothing was registered"


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


def families(report: Mapping[str, Any], protocol: str) -> list[str]:
    """Families measured under a protocol, the model first, the others by the gate's metric."""
    measured = [family for family, by_protocol in report["metrics"].items() if protocol in by_protocol]
    metric = report["gate"]["metric"]
    return sorted(measured, key=lambda family: (family != report["model"], -(report["metrics"][family][protocol].get(metric) or 0.0)))


def best(report: Mapping[str, Any], protocol: str, metric: str) -> float | None:
    """Highest value of a metric over all families under a protocol."""
    values = [report["metrics"][family][protocol].get(metric) for family in families(report, protocol)]
    return max((value for value in values if value is not None), default=None)


def next_steps(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(what, path, address or command) pairs: where to look next."""
    links: dict[str, str] = {key: value for key, value in report["links"].items() if value}
    folder = Path(links.pop("folder"))
    named = {
        "data_docs": "Data Docs",
        "mlflow_url": "MLflow run",
        "mlflow_run_id": "MLflow run id",
        "prefect_url": "Prefect run",
        "quarantine": "Rows put aside",
    }
    steps = [("Report", str(folder / "report.html")), ("Night's folder", str(folder))]
    steps += [(named.get(key, spoken(key).capitalize()), value) for key, value in links.items()]
    others = [family for family in families(report, report["protocols"][0]) if family != report["model"]]
    if others:
        tonight = f"{report['name']}/{report['night']}"
        other = "champion" if "champion" in others else others[0]
        steps.append(("Compare", f"nightloom compare {tonight} {tonight} --family-b {other}"))
    steps.append(("Both UIs", "make ui"))
    return steps


def _version(version: Any, otherwise: str) -> str:
    return otherwise if version is None else f"version {version}"


def shares(training: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """What a score is made of: (member, its share, validation NDCG@10 of it alone), the largest share first.

    Args:
        training: figures of one protocol's training.
    """
    weights = training["weights"]
    parts = {"network": 1 - sum(weights.values())} | weights
    alone = training["validation_alone"]
    return sorted(((spoken(name), parts.get(name, 0.0), value) for name, value in alone.items()), key=lambda one: -one[1])


def pictures(report: Mapping[str, Any]) -> str:
    """How many items have a picture and what could not be read; empty where the catalogue has no image column."""
    found = report["images"]
    if not found:
        return ""
    said = f"{found['with_image']:,} of {found['items']:,} items have a picture"
    if not found["unreadable"]:
        return said + "."
    return f"{said}; {found['unreadable']:,} pictures can not be read, for example {found['examples'][0]}. All: unreadable_images.csv."


def started(training: Mapping[str, Any]) -> str:
    """From what a network was trained, in a sentence."""
    if training.get("warm_start"):
        return "The network was trained on from the champion's weights."
    reason = training.get("cold_because")
    return "The network was trained from scratch" + (f": {reason}." if reason else ".")


def purchased(training: Mapping[str, Any]) -> str:
    """What the re-ranker does and how true its probabilities are, in a sentence or two; nothing where none was fitted."""
    found, probabilities = training.get("purchase"), training.get("probabilities")
    if not found or not found["asked"]:
        return ""
    change = (
        f"{found['gain']:+.4f} NDCG@10, standard error {found['error']:.4f}, "
        f"{found['asked']:,} validation users that it had not learnt from"
    )
    if not found["kept"]:
        return f"A re-ranker was tried and left out: it is not better for sure ({change})."
    said = f"The re-ranker puts the best candidates in order by their probability of being had ({change}); scores are log-odds."
    if probabilities:
        said += f" On the test these probabilities have AUC {probabilities['auc']:.3f}, log-loss {probabilities['log_loss']:.4f}, "
        share = f"{100 * probabilities['had']:.1f} % of {probabilities['rows']:,.0f} candidates"
        said += f"calibration error {probabilities['ece']:.4f}; {share} were consumed."
    return said


def labelled(training: Mapping[str, Any]) -> str:
    """How true the label head's probabilities are, in a sentence; nothing where there is no such head."""
    probabilities = training.get("label_probabilities")
    if not probabilities:
        return ""
    return (
        f"The label head gives the probability that an event is positive: on {probabilities['rows']:,.0f} test events, "
        f"{100 * probabilities['positive']:.1f} % of them positive, AUC {probabilities['auc']:.3f}, "
        f"log-loss {probabilities['log_loss']:.4f}, "
        f"calibration error {probabilities['ece']:.4f}."
    )
