"""Stage explain: Shapley reasons for a sample of recommendations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from nightloom.core.blocklist import Blocklist, blocklist_of
from nightloom.explain.explain import explain as find_reasons
from nightloom.runs.keys import ReadKeys
from nightloom.runs.stages import Manifest, Night, run_stage
from tasks.progress import log_done, report_progress


@task(name="explain", task_run_name="explain {night.config.name}", cache_policy=NO_CACHE)
def explain(night: Night, prepared: Manifest, tuned: Manifest) -> Manifest:
    """Say why, for some held-out users, the first recommendation is what it is."""
    read, protocol = ReadKeys(night.config, "explain", "evaluation.exclude_seen", "training.seed"), night.config.evaluation.protocols[0]
    blocklist = Blocklist.read(blocklist_of(night.root, night.config.name))

    def body(folder: Path) -> dict[str, Any]:
        said = {"explain": read.explain, "exclude_seen": read.evaluation.exclude_seen, "seed": read.training.seed, "blocklist": blocklist}
        return find_reasons(prepared.path, tuned.path / protocol / "bundle", folder, report_progress, protocol=protocol, **said)

    manifest = run_stage(
        night,
        "explain",
        body,
        inputs=[prepared, tuned],
        config=read.values | {"protocol": protocol},
        code=[find_reasons],
        salt=blocklist.digest,
    )
    return log_done(manifest, f"reasons for {manifest.figures['users']} users")
