"""Click models: what was shown is gathered, the head and its baselines are fitted on it and laid side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from expectations.run import read_checked
from nightloom.core.files import write_json
from nightloom.core.privacy_key import fingerprint, privacy_key
from nightloom.data.preparation.impressions import Impressions, impressions
from nightloom.experiments.click_baselines import calibration_plot, differences, fit_and_measure
from nightloom.explain.click_trees import FILE as TREES
from nightloom.explain.click_trees import explain_trees
from nightloom.report.clicks import NOTE, apart, markdown, rows, trees
from nightloom.runs.keys import ReadKeys
from nightloom.runs.nights import publish_folder
from nightloom.runs.provenance import run_tags
from nightloom.runs.stages import Manifest, Night, run_stage
from nightloom.runs.tracking import Tracking
from tasks.progress import artifact_key, log_done, report_progress, tell


@task(name="prepare-clicks", cache_policy=NO_CACHE)
def prepare_clicks(night: Night, checked: Manifest) -> Manifest:
    """Gather what was shown, clicked or not, with all that was known of it."""
    read, key = ReadKeys(night.config, "prepare", "clicks.test_from"), privacy_key(night.root)

    def body(folder: Path) -> dict[str, Any]:
        found = impressions(read_checked(checked.path), prepare=read.prepare, test_from=read.clicks.test_from, key=key)
        found.save(folder)
        return {"rows": len(found), "clicks": int(found.clicked.sum()), "fields": len(found.fields), "numbers": len(found.number_names)}

    manifest = run_stage(
        night, "prepare_clicks", body, inputs=[checked], config=read.values | {"key": fingerprint(key)}, code=[read_checked, impressions]
    )
    figures = manifest.figures
    return log_done(manifest, f"{figures['rows']:,} shown, {figures['clicks']:,} clicked, {figures['fields']} fields")


@task(name="fit-clicks", task_run_name="fit {family}", cache_policy=NO_CACHE)
def fit_clicks(night: Night, family: str, prepared: Manifest) -> Manifest:
    """Fit one family and ask it about the test part; what was made before is found."""
    read = ReadKeys(night.config, "clicks", "training.seed", "promotion.confidence")

    def body(folder: Path) -> dict[str, Any]:
        said = {"clicks": read.clicks, "seed": read.training.seed, "confidence": read.promotion.confidence}
        return fit_and_measure(Impressions.load(prepared.path), family, folder, report_progress, explain_trees, **said)

    manifest = run_stage(night, f"clicks_{family}", body, inputs=[prepared], config=read.values, code=[fit_and_measure, explain_trees])
    test = manifest.figures["test"]
    return log_done(manifest, f"AUC {test['auc']:.4f}, log-loss {test['log_loss']:.4f}")


@task(name="compare-clicks", cache_policy=NO_CACHE)
def compare_clicks(night: Night, run: str, collected: Manifest, fitted: Sequence[Manifest]) -> tuple[str, dict[str, str]]:
    """A nested MLflow run a family, a table in Prefect, and `clicks.md`, `clicks.json`, `calibration.png` in the run's folder.

    Returns:
        The table as Markdown, and family -> id of its MLflow run.
    """
    tracking, tags = Tracking(night.root), run_tags(night, collected.figures["hash"])
    tracking.client.set_tag(run, "mlflow.runName", f"clicks {night.night}")
    tracking.log_dataset(run, night.config.name, collected.figures["hash"], collected.folder, collected.figures["counts"])
    runs = {}
    for one in fitted:
        found = one.figures
        metrics = {part: found[part] for part in ("validation", "test")} | {"fit": {"cpu_seconds": found["cpu_seconds"]}}
        params = {"seed": found["seed"], "calibrator": found["calibrator"], "step": found["step"]}
        files = sorted(path for path in one.path.iterdir() if path.suffix in (".json", ".parquet", ".safetensors"))
        runs[found["family"]] = tracking.log_family(run, found["family"], metrics, tags=tags, params=params, files=files)
        tracking.log_plots(runs[found["family"]], one.path / "plots")
    results, confidence = [one.figures for one in fitted], night.config.promotion.confidence
    tell(create_table_artifact, rows(results), key=artifact_key("clicks", night.config.name), description=f"Clicks, {night.night}")
    folders = {one.figures["family"]: one.path for one in fitted}
    text = markdown(night.config.name, results, apart(differences(folders, confidence), confidence), NOTE)
    looked_at = next((folder / TREES for folder in folders.values() if (folder / TREES).is_file()), None)
    text += "" if looked_at is None else trees(json.loads(looked_at.read_text(encoding="utf-8")))
    night.folder.mkdir(parents=True, exist_ok=True)
    (night.folder / "clicks.md").write_text(text, encoding="utf-8")
    write_json(night.folder / "clicks.json", results)
    calibration_plot(night.folder / "calibration.png", folders, f"Calibration on the test part, {night.config.name}, {night.night}")
    for name, place in (("clicks.md", None), ("calibration.png", "plots")):
        tracking.client.log_artifact(run, str(night.folder / name), place)
    publish_folder(night)
    return text, runs
