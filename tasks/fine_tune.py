"""Stage fine_tune: distributed training, one model a protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from nightloom.promotion.registry import PREVIOUS, Registry, Version
from nightloom.runs.stages import Manifest, Night, run_stage
from nightloom.training.fine_tune import fine_tune as train
from tasks.progress import log_done, report_progress


@task(name="fine-tune", cache_policy=NO_CACHE)
def fine_tune(night: Night, prepared: Manifest, pretrained: Manifest) -> Manifest:
    """Train in worker processes; a killed night goes on from its last checkpoint."""
    config = night.config
    started_from = _start(night, prepared)
    version, bundle = started_from if started_from else (None, None)

    def body(folder: Path) -> dict[str, Any]:
        return {
            protocol: train(
                config,
                protocol,
                prepared.path,
                pretrained.path,
                folder / protocol,
                _epoch_reporter(protocol, config.training.epochs),
                bundle,
            )
            for protocol in config.evaluation.protocols
        }

    sections = {"model": config.model, "training": config.training, "pretrained": config.pretrained}
    salt = night.night if night.force else f"start {version.run_id}" if version else ""
    manifest = run_stage(night, "fine_tune", body, inputs=[prepared, pretrained], config=sections, salt=salt, resumable=True)
    first = manifest.figures[config.evaluation.protocols[0]]
    words = (
        f"{config.training.workers} workers, best epoch {first['best_epoch']}, validation NDCG@10 {first['best_validation_ndcg_at_10']:.4f}"
    )
    return log_done(manifest, words)


def _start(night: Night, prepared: Manifest) -> tuple[Version, Path] | None:
    """The version to start from: the champion or, when a killed night had promoted its own already, the one before.

    A forced night has none.
    """
    config = night.config
    if not config.training.warm_start or night.force or config.promotion.mode == "disabled":
        return None
    registry, tonight = Registry(night.root), (prepared.path / "meta.json").read_bytes()
    for version in (registry.champion(config.name), registry.find(config.name, PREVIOUS)):
        if version is None:
            return None
        bundle = registry.fetch(version, night.root / "cache" / "champions")
        if (bundle / "meta.json").read_bytes() != tonight:
            return version, bundle
    return None


def _epoch_reporter(protocol: str, epochs: int) -> Any:
    def on_epoch(line: dict[str, Any]) -> None:
        quality = line.get("validation_ndcg_at_10")
        found = f", validation NDCG@10 {quality:.4f}" if quality is not None else ""
        phase = "refit" if line.get("phase") == "refit" else "epoch"
        report_progress(f"fine_tune {protocol}: {phase} {line['epoch']}, loss {line['loss']:.3f}{found}", min(1.0, line["epoch"] / epochs))

    return on_epoch
