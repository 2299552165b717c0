"""Stage evaluate: the model, the standing champion and the baselines on the same held-out users."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from nightloom.evaluation.evaluate import evaluate as rank
from nightloom.evaluation.rivals import CHAMPION
from nightloom.promotion.registry import Registry
from nightloom.runs.stages import Manifest, Night, run_stage
from tasks.progress import log_done, report_progress


@task(name="evaluate", task_run_name="evaluate {night.config.name}", cache_policy=NO_CACHE)
def evaluate(night: Night, prepared: Manifest, pretrained: Manifest, tuned: Manifest) -> Manifest:
    """Rank every family over the whole catalogue."""
    config = night.config
    registry = Registry(night.root)
    trained = f"{tuned.key} {config.evaluation.protocols[0]}"
    rivals = registry.rivals(config.name, trained) if config.promotion.mode != "disabled" else {}
    sections: dict[str, Any] = {"evaluation": config.evaluation, "promotion": config.promotion}

    def body(folder: Path) -> dict[str, Any]:
        places = {name: registry.fetch(version, night.root / "cache" / "champions") for name, version in rivals.items()}
        bundles: dict[str, Path] = {protocol: tuned.path / protocol / "bundle" for protocol in config.evaluation.protocols}
        figures = rank(prepared.path, bundles, places, pretrained.path, folder, report_progress, seed=config.training.seed, **sections)
        return figures | {"champion": rivals[CHAMPION].version if CHAMPION in rivals else None}

    salt = " ".join(f"{name} {version.version}" for name, version in rivals.items())
    manifest = run_stage(night, "evaluate", body, inputs=[prepared, pretrained, tuned], config=sections, salt=salt)
    protocol = config.evaluation.protocols[0]
    users = manifest.figures["test_users"][protocol]
    return log_done(manifest, f"{len(manifest.figures['metrics'])} models on {users:,} held-out users ({protocol})")
