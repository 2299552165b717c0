"""Stage fine_tune: distributed training, one model a protocol."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from nightloom.core.errors import NightloomError
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.promotion.registered import PREVIOUS, SAW_FORGOTTEN, TRAINED_TAG, Version
from nightloom.promotion.registry import Registry
from nightloom.promotion.standing import readable
from nightloom.runs.keys import TRAINING, ReadKeys
from nightloom.runs.provenance import run_tags
from nightloom.runs.stages import Manifest, Night, run_stage
from nightloom.runs.tracking import Tracking
from nightloom.training.fine_tune import WORKER, Start
from nightloom.training.fine_tune import fine_tune as train
from nightloom.training.warm_start import SEARCH_FILE
from tasks.progress import ProgressBar, artifact_key, log_done, report_progress


@task(name="fine-tune", task_run_name="fine-tune {night.config.name}", cache_policy=NO_CACHE)
def fine_tune(night: Night, run: str, collected: Manifest, prepared: Manifest, pretrained: Manifest) -> Manifest:
    """Train in worker processes; a killed night goes on from its last checkpoint.

    The curves can be followed in the model's MLflow run, which is nested in the night's `run`.
    """
    config = night.config
    started_from = _start(night, prepared)
    version, start = started_from if started_from else (None, None)

    def body(folder: Path) -> dict[str, Any]:
        tracking = Tracking(night.root)
        model_run = tracking.open_family(run, SequentialRecommender.family, run_tags(night, collected.figures["hash"]))
        figures: dict[str, Any] = {}
        for protocol in config.evaluation.protocols:
            said = f"Training of {config.name}, {protocol.replace('_', ' ')} split"
            with ProgressBar(artifact_key("training", config.name, protocol), said) as bar:
                on_epoch = _epoch_reporter(tracking, model_run, protocol, config.training.epochs, bar)
                figures[protocol] = train(config, protocol, prepared.path, pretrained.path, folder / protocol, on_epoch, start)
        return figures

    read = ReadKeys(config, *TRAINING, "evaluation.protocols").values | {"fingerprints": pretrained.figures["fingerprints"]}
    salt = night.night if night.force else f"start {version.run_id}" if version else ""
    manifest = run_stage(
        night,
        "fine_tune",
        body,
        inputs=[prepared, pretrained],
        config=read,
        code=[train, WORKER],
        results=("*/bundle/*",),
        salt=salt,
        resumable=True,
    )
    first = manifest.figures[config.evaluation.protocols[0]]
    words = (
        f"{config.training.workers} workers, best epoch {first['best_epoch']}, validation NDCG@10 {first['best_validation_ndcg_at_10']:.4f}"
    )
    return log_done(manifest, words)


def _start(night: Night, prepared: Manifest) -> tuple[Version, Start] | None:
    """The version to start from: the champion or, when a killed night had promoted its own already, the one before.

    One that can not be read is passed over. A forced night has none.
    """
    config = night.config
    if not config.training.warm_start or night.force or config.promotion.mode == "disabled":
        return None
    registry, tonight = Registry(night.root), (prepared.path / "meta.json").read_bytes()
    if config.promotion.registers:
        registry.settle(config.name)
    for version in (registry.champion(config.name), registry.find(config.name, PREVIOUS)):
        if version is None:
            continue
        if SAW_FORGOTTEN in version.tags:
            report_progress(f"fine_tune: not started from version {version.version}, which learned from somebody who was forgotten since")
            continue
        notes = list[str]()
        bundle = readable(registry, version, night.root / "cache" / "champions", notes)
        for note in notes:
            report_progress(f"fine_tune: not started from version {version.version}. {note}")
        if bundle is not None and (bundle / "meta.json").read_bytes() != tonight:
            return version, Start(bundle, _search(night, version))
    return None


def _search(night: Night, version: Version) -> Path:
    """Where a version's weights from before its validation cutoff lie: in the stage that trained it, and nowhere else."""
    key, _, protocol = version.tags.get(TRAINED_TAG, "").partition(" ")
    place = f"stages/{night.config.name}/fine_tune/{key or 'unknown'}"
    if key:
        night.storage.fetch(place)
    return night.root / place / protocol / SEARCH_FILE


def _epoch_reporter(tracking: Tracking, run: str, protocol: str, epochs: int, bar: ProgressBar) -> Callable[[dict[str, Any]], None]:
    """What is done after each epoch: a line in the log, a step of Prefect's bar, a point of MLflow's curves.

    MLflow is reached from outside the workers. Where it can not be, training goes on and the curves are logged at the end.
    """

    def on_epoch(line: dict[str, Any]) -> None:
        refits = line.get("phase") == "refit"
        quality = line.get("validation_ndcg_at_10")
        found = f", validation NDCG@10 {quality:.4f}" if quality is not None else ""
        said = f"{'refit' if refits else 'epoch'} {line['epoch']}, loss {line['loss']:.3f}{found}"
        fraction = min(1.0, line["epoch"] / epochs)
        report_progress(f"fine_tune {protocol}: {said}", fraction)
        bar.update(fraction, said)
        if not refits:
            try:
                tracking.log_epoch(run, protocol, line)
            except NightloomError as error:
                get_run_logger().warning(f"fine_tune {protocol}: this epoch is not in MLflow yet. {error}")

    return on_epoch
