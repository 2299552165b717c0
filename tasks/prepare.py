"""Stage prepare: good rows become cleaned, labelled, split and packed sequences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from expectations.run import read_checked
from nightloom.data.preparation.prepare import prepare as pack
from nightloom.data.tables.kept import kept_home
from nightloom.runs.keys import ReadKeys
from nightloom.runs.stages import Manifest, Night, run_stage
from tasks.progress import log_done


@task(name="prepare", task_run_name="prepare {night.config.name}", cache_policy=NO_CACHE)
def prepare(night: Night, checked: Manifest) -> Manifest:
    """Clean, label, split and pack."""
    read = ReadKeys(night.config, "prepare", "evaluation.protocols", "evaluation.exclude_seen", "data.tags_separator")

    def body(folder: Path) -> dict[str, Any]:
        return pack(
            read_checked(checked.path, in_blocks=True),
            folder,
            prepare=read.prepare,
            evaluation=read.evaluation,
            tags_separator=read.data.tags_separator,
            keep=None if night.run_directory else kept_home(night.root, night.config.name) / "prepare",
        )

    manifest = run_stage(night, "prepare", body, inputs=[checked], config=read.values, code=[read_checked, pack])
    figures = manifest.figures
    removed = sum(figures["removed"].values())
    left_out = f", {removed:,} events left out" if removed else ""
    return log_done(manifest, f"{figures['events']:,} events of {figures['users']:,} users on {figures['items']:,} items{left_out}")
