"""Stage explain: Shapley reasons for a sample of recommendations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from nightloom.explain.explain import explain as find_reasons
from nightloom.runs.stages import Manifest, Night, run_stage
from tasks.progress import log_done, report_progress


@task(name="explain", task_run_name="explain {night.config.name}", cache_policy=NO_CACHE)
def explain(night: Night, prepared: Manifest, tuned: Manifest) -> Manifest:
    """Say why, for some held-out users, the first recommendation is what it is."""
    evaluation, seed = night.config.evaluation, night.config.training.seed  # these are in the keys of the stages before
    protocol = evaluation.protocols[0]
    sections: dict[str, Any] = {"explain": night.config.explain}

    def body(folder: Path) -> dict[str, Any]:
        bundle, left_out = tuned.path / protocol / "bundle", evaluation.exclude_seen
        return find_reasons(prepared.path, bundle, folder, report_progress, protocol=protocol, exclude_seen=left_out, seed=seed, **sections)

    manifest = run_stage(night, "explain", body, inputs=[prepared, tuned], config=sections)
    return log_done(manifest, f"reasons for {manifest.figures['users']} users")
