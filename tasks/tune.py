"""The end of a tuning: many fine-tunings, each a nested run in MLflow, and the best config as a YAML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from nightloom.report.tuning import headline, importances, rows
from nightloom.runs.provenance import run_tags
from nightloom.runs.stages import Manifest, Night
from nightloom.runs.tracking import Tracking
from nightloom.training.budget import Budget
from nightloom.training.search import Attempt, Tuned, Tuner
from nightloom.training.search_space import write_preset
from tasks.progress import artifact_key, report_progress, tell


@task(name="tune", cache_policy=NO_CACHE)
def tune(night: Night, collected: Manifest, prepared: Manifest, pretrained: Manifest, budget: Budget, preset: Path) -> Tuned:
    """Try configs until the budget is spent; a killed study goes on."""
    tracking, study, protocol = Tracking(night.root), night.folder.name, night.config.evaluation.protocols[0]
    tags = run_tags(night, collected.figures["hash"])
    tuner = Tuner(night.config, prepared.path, pretrained.path, night.folder, budget, prepared.made + pretrained.made)
    with tracking.study(night.config, study, night.folder, tags) as run:

        def on_trial(one: Attempt) -> None:
            found: dict[str, dict[str, float]] = {protocol: {"validation_ndcg_at_10": one.ndcg} if one.ndcg is not None else {}}
            state = {"nightloom.trial": str(one.number), "nightloom.trial_state": one.state}
            tracking.log_nested(run, f"trial {one.number}", found, tags=tags | state, params=one.values, curves={protocol: one.curve})
            quality = f"validation NDCG@10 {one.ndcg:.4f}" if one.ndcg is not None else f"{one.state} after {len(one.curve)} epochs"
            report_progress(f"tune: trial {one.number}, {quality}, {one.seconds:.0f} s")

        def on_epoch(number: int, line: Mapping[str, Any]) -> None:
            done = min(1.0, line["epoch"] / night.config.training.epochs)
            report_progress(f"tune: trial {number}, epoch {line['epoch']}, validation NDCG@10 {line['validation_ndcg_at_10']:.4f}", done)

        tuned = tuner.run(on_trial, on_epoch)
        comment = f"Found by python -m flows.tune, study {study}, on data {collected.figures['hash'][:12]}.\n{headline(tuned)}."
        write_preset(preset, night.config, tuned.best.values, comment)
        tracking.log_metrics(run, {protocol: {"validation_ndcg_at_10": tuned.best.ndcg or 0.0}})
        tracking.client.log_artifact(run, str(preset))
    key = artifact_key("tune", study)
    tell(create_table_artifact, rows(tuned), key=key, description=headline(tuned))
    if tuned.importance:
        tell(create_table_artifact, importances(tuned), key=f"{key}-importance", description="Share of the spread of results by key")
    return tuned
