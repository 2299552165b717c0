"""Stage validate: the data contracts of expectations/; a broken one stops the night before any training."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from expectations.run import check
from nightloom.core.errors import ContractBroken, DamagedError
from nightloom.data.tables.kept import kept_home
from nightloom.data.tables.pictures import PICTURES
from nightloom.data.tables.snapshot import read_snapshot
from nightloom.runs.keys import ReadKeys
from nightloom.runs.stages import Manifest, Night, run_stage
from tasks.progress import log_done

GOOD = ("events.parquet", "events.parquet/*", "items.parquet", "users.parquet", "links.parquet", "tables.json", PICTURES)
"""What later stages read: good rows, not what was found about the others."""


@task(name="validate", task_run_name="validate {night.config.name}", cache_policy=NO_CACHE)
def validate(night: Night, collected: Manifest) -> Manifest:
    """Check the snapshot; good rows go on, bad rows go to the quarantine."""
    last, now = night.last_rows(), night.now

    def body(folder: Path) -> dict[str, Any]:
        try:
            keep = None if night.run_directory else kept_home(night.root, night.config.name) / "validate"
            return check(read_snapshot(collected.path, in_blocks=True), night.config, folder, last, now, keep)
        except ContractBroken as broken:  # an unfinished stage's folder is made anew by the next run: what was found stays in the night's
            keep_findings(folder, night)
            raise broken.moved(night.folder) from None

    read = ReadKeys(night.config, "validation", "prepare", "pretrained.max_bad_images")
    suite = f"expectations.{night.config.validation.suite}"
    # Freshness and growth depend on the day and on the last night, not on the snapshot alone; what was fresh this morning is judged again
    # when it has grown too old. The good rows are the same then, and so are the stages after.
    salt = f"{last} {now.date() if night.config.validation.max_age_days else ''}{' stale' if stale(night) else ''}"
    manifest = run_stage(night, "validate", body, inputs=[collected], config=read.values, code=[check, suite], results=GOOD, salt=salt)
    keep_findings(manifest.path, night)
    quarantined = sum(manifest.figures["quarantined"].values())
    return log_done(manifest, f"{manifest.figures['rules']} rules, {quarantined:,} rows quarantined")


def keep_findings(checked: Path, night: Night) -> None:
    """Copy the quarantine, the Data Docs and each rule's outcome into the night's folder."""
    for name in ("quarantine", "data_docs"):
        shutil.copytree(checked / name, night.folder / name, dirs_exist_ok=True)
    shutil.copyfile(checked / "checks.json", night.folder / "checks.json")


def stale(night: Night) -> bool:
    """Whether the newest event of the last finished night is by now older than `validation.max_age_days` allows."""
    limit, last = night.config.validation.max_age_days, night.latest / "manifests" / "validate.json"
    if limit is None or night.as_of or not last.exists():
        return False
    try:
        newest = Manifest.load(last).figures["newest"]  # a number where events have an order and no time
    except DamagedError:
        return True  # who does not know looks again
    return isinstance(newest, str) and night.now - datetime.fromisoformat(newest) > timedelta(days=limit)
