"""Stage evaluate: the model, the standing champion and the baselines on the same held-out users."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from nightloom.core.asked import asked
from nightloom.evaluation.evaluate import evaluate as rank
from nightloom.promotion.registry import Registry
from nightloom.promotion.standing import Standing, stand
from nightloom.runs.keys import ReadKeys
from nightloom.runs.stages import Manifest, Night, run_stage
from tasks.progress import log_done, report_progress


@task(name="evaluate", task_run_name="evaluate {night.config.name}", cache_policy=NO_CACHE)
def evaluate(night: Night, prepared: Manifest, pretrained: Manifest, tuned: Manifest) -> Manifest:
    """Rank every family over the whole catalogue."""
    config = night.config
    found = standing(night, Registry(night.root), f"{tuned.key} {config.evaluation.protocols[0]}")
    for note in found.notes:
        report_progress(f"evaluate: {note}")
    judged = (f"promotion.{key}" for key in ("metric", "confidence", "resamples", "margin"))
    read = ReadKeys(config, *(f"evaluation.{key}" for key in ("protocols", "baselines", "exclude_seen")), *judged, "training.seed")

    def body(folder: Path) -> dict[str, Any]:
        bundles: dict[str, Path] = {protocol: tuned.path / protocol / "bundle" for protocol in read.evaluation.protocols}
        said = {"evaluation": read.evaluation, "promotion": read.promotion, "seed": read.training.seed}
        figures = rank(prepared.path, bundles, found.places, pretrained.path, folder, report_progress, **said)
        return figures | {"champion": found.champion}

    salt = " ".join(f"{name} {version.version} {version.run_id}" for name, version in found.rivals.items())
    manifest = run_stage(
        night,
        "evaluate",
        body,
        inputs=[prepared, pretrained, tuned],
        config=read.values,
        code=[rank, "nightloom.models.baselines"],  # a baseline is imported by its name
        salt=salt,
    )
    protocol = config.evaluation.protocols[0]
    said = asked(*(manifest.figures[name][protocol] for name in ("test_users", "test_queries")))
    return log_done(manifest, f"{len(manifest.figures['metrics'])} models on {said} ({protocol})")


def standing(night: Night, registry: Registry, trained: str) -> Standing:
    """What tonight's challenger is compared with; a promotion that a kill cut short is carried out first.

    Args:
        night: the night that runs.
        registry: where versions are.
        trained: the challenger's `TRAINED_TAG`.
    """
    rules, report = night.config.promotion, night.latest / "report.json"
    if rules.mode == "disabled":
        return Standing()
    if rules.registers:
        registry.settle(night.config.name)
    last = json.loads(report.read_text(encoding="utf-8")).get("versions", {}).get("champion") if report.exists() else None
    return stand(registry, night.config.name, trained, night.root / "cache" / "champions", last)
