"""Baselines side by side: one fitted and ranked, and all of them compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from nightloom.core.files import write_json
from nightloom.experiments.arguments import VARIANTS
from nightloom.experiments.baselines import measure, varied
from nightloom.report.baselines import markdown, rows
from nightloom.runs.keys import TRAINING, ReadKeys
from nightloom.runs.nights import publish_folder
from nightloom.runs.provenance import run_tags
from nightloom.runs.stages import Manifest, Night, run_stage
from nightloom.runs.tracking import Tracking
from nightloom.training.fine_tune import WORKER
from tasks.progress import artifact_key, log_done, report_progress, tell


@task(name="family", task_run_name="family {family}", cache_policy=NO_CACHE)
def measure_family(night: Night, family: str, prepared: Manifest, pretrained: Manifest) -> Manifest:
    """Fit and rank one family; what was made before is found."""

    def body(folder: Path) -> dict[str, Any]:
        return measure(night.config, family, prepared.path, pretrained.path, folder, report_progress)

    trains = family in VARIANTS
    read = ReadKeys(
        varied(night.config, family),
        *("evaluation.protocols", "evaluation.exclude_seen", "promotion.confidence", *(TRAINING if trains else ("training.seed",))),
    ).values | ({"fingerprints": pretrained.figures["fingerprints"]} if trains else {})
    manifest = run_stage(
        night,
        f"family_{family}",
        body,
        inputs=[prepared, pretrained],
        config=read,
        code=[measure, WORKER if trains else "nightloom.models.baselines"],
        resumable=trains,
    )
    protocol = night.config.evaluation.protocols[0]
    return log_done(manifest, f"NDCG@10 {manifest.figures['metrics'][protocol].get('ndcg_at_10', 0.0):.4f} ({protocol})")


@task(name="compare-baselines", cache_policy=NO_CACHE)
def compare_baselines(night: Night, run: str, collected: Manifest, families: Sequence[Manifest], said: str) -> str:
    """A nested MLflow run for each, a table in Prefect, `baselines.md` and `baselines.json` in the run's folder; gives the Markdown."""
    tracking, tags = Tracking(night.root), run_tags(night, collected.figures["hash"])
    tracking.client.set_tag(run, "mlflow.runName", f"baselines {night.night}")
    tracking.log_dataset(run, night.config.name, collected.figures["hash"], collected.folder, collected.figures["counts"])
    results = [family.figures for family in families]
    for family, found in zip(families, results, strict=True):
        metrics = {name: dict(one) | {"fit_cpu_seconds": found["fit_cpu_seconds"][name]} for name, one in found["metrics"].items()}
        model = varied(night.config, found["family"]).model.model_dump(mode="json") if found["family"] in VARIANTS else {}
        params = {"seed": night.config.training.seed, "model": model}
        files = [family.path / "per_user.parquet", family.path / "result.json"]
        tracking.log_family(run, found["family"], metrics, tags=tags, params=params, curves=found["curves"], files=files)
    protocols = night.config.evaluation.protocols
    for protocol in protocols:
        key = artifact_key("baselines", night.config.name, protocol)
        tell(create_table_artifact, rows(results, protocol), key=key, description=f"Baselines, {protocol}, {night.night}")
    text = markdown(results, protocols, night.config.promotion.confidence, said)
    night.folder.mkdir(parents=True, exist_ok=True)
    (night.folder / "baselines.md").write_text(text, encoding="utf-8")
    write_json(night.folder / "baselines.json", results)
    tracking.client.log_artifact(run, str(night.folder / "baselines.md"))
    publish_folder(night)
    return text
