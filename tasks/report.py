"""The end of a night: its report as files in the night's folder, and its outcome in MLflow and Prefect."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from nightloom.core.blocklist import Blocklist, blocklist_of
from nightloom.core.errors import DamagedError, InputError
from nightloom.core.files import write_json, write_text
from nightloom.core.secrets import hidden_in, public
from nightloom.encoders.load_pretrained import replaced
from nightloom.evaluation import movers, samples
from nightloom.evaluation.held_out import ASKED
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.packaging.reader import BundleReader
from nightloom.packaging.shown import blocked_ids
from nightloom.promotion.registered import SAW_FORGOTTEN
from nightloom.promotion.registry import Registry
from nightloom.report import figures, words
from nightloom.report.build import build_report
from nightloom.report.html import render_html
from nightloom.report.markdown import markdown
from nightloom.runs.code import code_version
from nightloom.runs.nights import finish, publish_folder, stages_whole
from nightloom.runs.provenance import git_state, run_tags
from nightloom.runs.stages import Manifest, Night
from nightloom.runs.tracking import Tracking
from tasks.cards import DATA, MODEL, card_of_data, card_of_model
from tasks.progress import artifact_key, name_run, tell
from tasks.validate import stale

STAGES = ("validate", "prepare", "load_pretrained", "fine_tune", "evaluate", "explain", "promote")
"""Stages after collect, in order."""


@task(name="log-models", task_run_name="log-models {night.config.name}", cache_policy=NO_CACHE)
def log_families(night: Night, run: str, collected: Manifest, tuned: Manifest, evaluated: Manifest) -> str:
    """Nested MLflow runs for the model and each baseline; gives the model's run back."""
    tracking, tags = Tracking(night.root), run_tags(night, collected.figures["hash"])
    tracking.log_dataset(run, night.config.name, collected.figures["hash"], collected.folder, collected.figures["counts"])
    curves: dict[str, Any] = {protocol: _read(tuned.path / protocol / "curves.json") for protocol in night.config.evaluation.protocols}
    model_run = ""
    for family, metrics in evaluated.figures["metrics"].items():
        model = family == SequentialRecommender.family
        if model:
            metrics = with_live(with_membership(metrics, evaluated.figures["membership"]), evaluated.figures["live"])
        tables = [evaluated.path / name for name in ("per_user.parquet", "slices.json", "intervals.json")]
        files = [*sorted((evaluated.path / "plots").glob("*.png")), *tables] if model else []
        shares = {protocol: tuned.figures[protocol]["weights"] for protocol in night.config.evaluation.protocols}
        params = night.config.model_dump(mode="json", include={"pretrained", "model", "training"}) | {"shares": shares} if model else {}
        made = tracking.log_family(run, family, metrics, tags=tags, params=params, curves=curves if model else None, files=files)
        model_run = made if model else model_run
    tracking.log_metrics(run, evaluated.figures["metrics"][SequentialRecommender.family])
    return model_run


def with_membership(metrics: Mapping[str, Mapping[str, float]], found: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, float]]:
    """The model's metrics by protocol, and the AUC of the best membership attack on what ships, per event and per user."""
    figures = {protocol: {f"membership_{unit}": one[f"shipped_{unit}"] for unit in ("events", "users")} for protocol, one in found.items()}
    return {protocol: {**one, **figures.get(protocol, {})} for protocol, one in metrics.items()}


def with_live(metrics: Mapping[str, Mapping[str, float]], live: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, float]]:
    """The model's metrics by protocol, and those with scorers kept up to date as `<protocol>_live`."""
    return {**metrics, **{f"{protocol}_live": one["metrics"] for protocol, one in live.items()}}


@task(name="report", task_run_name="report {night.config.name}", cache_policy=NO_CACHE)
def report(night: Night, run: str, stages: Sequence[Manifest]) -> dict[str, Any]:
    """Write report.json and report.html, log them to MLflow and Prefect, and point `latest` to this night."""
    by_name = {stage.stage: stage for stage in stages}
    collected, checked, tuned = by_name["collect"], by_name["validate"], by_name["fine_tune"]
    evaluated, promoted = by_name["evaluate"], by_name["promote"]
    explained = by_name["explain"]
    collected.save(night.folder / "manifests" / "collect.json")
    bundle = BundleReader.load(tuned.path / night.config.evaluation.protocols[0] / "bundle")
    blocked = blocked_ids(bundle, Blocklist.read(blocklist_of(night.root, night.config.name)))
    content = build_report(
        night,
        stages,
        data_hash=collected.figures["hash"],
        git={"commit": git_state(Path(__file__).parent)},
        metrics=evaluated.figures["metrics"],
        intervals=_read(evaluated.path / "intervals.json"),
        slices=_read(evaluated.path / "slices.json"),
        asked={protocol: {name: evaluated.figures[name][protocol] for name in ASKED} for protocol in night.config.evaluation.protocols},
        live=evaluated.figures["live"],
        fairness=evaluated.figures["fairness"],
        trade_off=evaluated.figures["trade_off"],
        newcomers=evaluated.figures["newcomers"],
        curves={protocol: _read(tuned.path / protocol / "curves.json") for protocol in night.config.evaluation.protocols},
        training={
            protocol: tuned.figures[protocol]
            | {key: evaluated.figures[key].get(protocol) for key in ("probabilities", "label_probabilities", "membership")}
            for protocol in night.config.evaluation.protocols
        },
        decision=promoted.figures["decision"],
        versions=promoted.figures["versions"],
        answer=promoted.figures.get("answer"),
        serves=promoted.figures["serves"],
        quarantined=checked.figures["quarantined"],
        quarantine_reasons=checked.figures["reasons"],
        counts=collected.figures["counts"],
        period=(checked.figures["oldest"], checked.figures["newest"]),
        images=by_name["load_pretrained"].figures["images"],
        explanations=_read(explained.path / "reasons.json"),
        reason_votes=collected.figures["reason_votes"],
        checks=_read(checked.path / "checks.json"),
        sample_lists=samples.without_blocked(_read(evaluated.path / "sample_lists.json"), blocked),
        movers=movers.without_blocked(_read(evaluated.path / "movers.json") or {"rises": [], "falls": []}, blocked),
        links=_mlflow_links(night, run) | {"data_docs": str(night.folder / "data_docs" / "index.html")},
        licence=collected.figures["licence"],
        model=SequentialRecommender.family,
    )
    answered = content["answer"] is not None  # the night's second report: it has ended before somebody answered
    if answered:
        content["finished"] = _read(night.folder / "report.json")["finished"]
    content |= {"code": code_version(), "rows": checked.figures["rows"]}
    content |= {"removed": by_name["prepare"].figures["removed"], "notes": hidden_in(collected.figures["notes"])}
    tags = run_tags(night, collected.figures["hash"]) | {"nightloom.night": night.night}
    stages_said = {"collected": collected, "tuned": tuned, "evaluated": evaluated, "explained": explained}
    cards = {
        MODEL: card_of_model(night, promoted.figures["decision"], tags, **stages_said),
        DATA: card_of_data(night, collected),
    }
    plots = figures.shown((evaluated.path, explained.path), night.config.evaluation.protocols)
    shutil.copyfile(evaluated.path / "per_user.parquet", night.folder / "per_user.parquet")
    _publish(night, run, content, plots, cards)
    Tracking(night.root).log_reasons(run, explained.path, explained.figures, collected.figures["reason_votes"])
    finish(night, again=answered)
    return content


@contextmanager
def refusals_reported(night: Night, run: str, collected: Manifest) -> Iterator[None]:
    """Write the report of a night whose input is refused in the block; `latest` stays at the last finished night."""
    try:
        yield
    except InputError as error:
        finished = [Manifest.load(night.folder / "manifests" / f"{stage}.json") for stage in STAGES if _finished(night, stage)]
        refused = next(stage for stage in STAGES if not _finished(night, stage))
        checks = night.folder / "checks.json"
        content = build_report(
            night,
            [collected, *finished],
            data_hash=collected.figures["hash"],
            git={"commit": git_state(Path(__file__).parent)},
            counts=collected.figures["counts"],
            links=_mlflow_links(night, run) | ({"data_docs": str(night.folder / "data_docs" / "index.html")} if checks.exists() else {}),
            licence=collected.figures["licence"],
            quarantined=quarantined(night),
            checks=_read(checks) if checks.exists() else [],
            refused=(refused, str(error)),
            model=SequentialRecommender.family,
        )
        _publish(night, run, content | {"code": code_version()}, {}, {})
        publish_folder(night)
        raise


def quarantined(night: Night) -> dict[str, int]:
    """Rows of each table in the night's quarantine."""
    return {path.stem: pq.read_metadata(path).num_rows for path in sorted((night.folder / "quarantine").glob("*.parquet"))}


def unchanged(night: Night, collected: Manifest) -> str | None:
    """Why tonight would give what the last night gave, in words; None when it would not.

    Unchanged data may have become too old since: then the night goes on to its data contract, which says so. It also goes on where the
    registry has lost its champion, which the gate then says. Where it does not go on, runs that killed nights left open are closed.
    """
    content = None if night.force or night.as_of else night.last_report()
    if content is None:
        return None
    same = content["data_hash"] == collected.figures["hash"] and content["config_hash"] == night.config.digest()
    if not same or content.get("code") != code_version() or stale(night) or _registry_differs(night, content):
        return None
    if not stages_whole(night, STAGES[:-1]):  # each night promotes for itself
        return None
    try:
        models = Manifest.load(night.latest / "manifests" / "load_pretrained.json").figures["fingerprints"]
    except DamagedError:
        return None
    if replaced(night.config.pretrained, models):
        return None
    Tracking(night.root).close_left(night.config.name)
    shown = f"data {content['data_hash'][:12]}, config {content['config_hash'][:12]}, code {content['code']}"
    return f"{shown} and the pretrained models are those of {content['night']}"


def _registry_differs(night: Night, report: dict[str, Any]) -> bool:
    """Whether the champion of the last night is gone or is to be replaced, or a hold that stopped its challenger has ended since."""
    if night.config.promotion.mode == "disabled" or report.get("versions", {}).get("champion") is None:
        return False
    registry = Registry(night.root)
    champion = registry.champion(night.config.name)
    if champion is None or SAW_FORGOTTEN in champion.tags:
        return True
    return bool(report["gate"].get("held")) and registry.hold(night.config.name) is None


def _publish(night: Night, run: str, content: dict[str, Any], plots: dict[str, Path], cards: Mapping[str, str]) -> None:
    """The report and the cards as files in the night's folder, and what became of the night in MLflow's run and in Prefect's."""
    for name, said in cards.items():
        write_text(night.folder / name, said)
    write_json(night.folder / "report.json", content)
    write_text(night.folder / "report.html", render_html(content, plots, night.folder))
    tracking, headline = Tracking(night.root), words.headline(content)
    with tracking.reached():
        tracking.client.log_artifact(run, str(night.folder / "report.json"))
        for name in cards:
            tracking.client.log_artifact(run, str(night.folder / name), "cards")
        # In MLflow the page stands alone: links to files beside it would be dead.
        tracking.client.log_text(run, render_html(content, plots), "report.html")
    tracking.log_outcome(run, content["outcome"], content["gate"], headline, words.reasons(content))
    name_run(night, content["outcome"])
    key, said = artifact_key("night", night.config.name), f"{headline} (night {night.night})"
    tell(create_markdown_artifact, markdown(content), key=key, description=said)
    rows = [
        {"model": family, "protocol": protocol} | {name: round(found[name], 4) for name in ("hr_at_10", "ndcg_at_10", "mrr_at_10")}
        for family, protocols in content["metrics"].items()
        for protocol, found in protocols.items()
    ]
    if rows:
        tell(create_table_artifact, rows, key=f"{key}-models", description=said)
    for name, text in (("mlflow_url", "This night's run"), ("mlflow_runs", "All runs, to sort and compare")):
        if address := content["links"].get(name):
            tell(create_link_artifact, address, key=artifact_key(name, night.config.name), link_text=text, description=said)


def _mlflow_links(night: Night, run: str) -> dict[str, str]:
    """Where MLflow shows the night: its id, and addresses where a server is known."""
    uri = os.environ.get("NIGHTLOOM_MLFLOW_URI", "")
    server = public(os.environ.get("NIGHTLOOM_MLFLOW_UI") or (uri if uri.startswith("http") else ""))
    links = {"mlflow_run_id": run}
    if server:
        tracking, server = Tracking(night.root), server.rstrip("/")
        links |= {"mlflow_url": f"{server}/{tracking.run_url(run)}", "mlflow_runs": f"{server}/{tracking.runs_url(run)}"}
    return links


def _finished(night: Night, stage: str) -> bool:
    return (night.folder / "manifests" / f"{stage}.json").exists()


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
