"""Stage validate: the data contracts of expectations/; a broken one stops the night before any training."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from expectations.run import check
from nightloom.data.snapshot import read_snapshot
from nightloom.stage import Manifest, Night, run_stage
from tasks.progress import made


@task(name="validate", cache_policy=NO_CACHE)
def validate(night: Night, collected: Manifest) -> Manifest:
    """Check the snapshot; good rows go on, bad rows go to the quarantine."""
    last, now = last_counts(night), datetime.now(UTC)

    def body(folder: Path) -> dict[str, Any]:
        return check(read_snapshot(collected.path), night.config, folder, last, now)

    sections = night.config.model_dump(mode="json", include={"validation", "prepare"})
    # Freshness and growth depend on the day and on the last night, not on the snapshot alone.
    salt = f"{last} {now.date() if night.config.validation.max_age_days else ''}"
    manifest = run_stage(night, "validate", body, inputs=[collected], config=sections, salt=salt)
    quarantined = sum(manifest.figures["quarantined"].values())
    return made(manifest, f"{manifest.figures['rules']} rules, {quarantined:,} rows quarantined")


def last_counts(night: Night) -> dict[str, int] | None:
    """Rows per table of the last finished night, or None on the first."""
    report = night.latest / "report.json"
    if not report.exists():
        return None
    counts: dict[str, int] | None = json.loads(report.read_text(encoding="utf-8")).get("rows")
    return counts
