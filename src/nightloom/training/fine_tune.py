"""Stage fine_tune: from prepared data and a pretrained language model to a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nightloom.stage import write_json
from nightloom.training.launch import Progress, launch

if TYPE_CHECKING:
    from nightloom.config import RunConfig


def fine_tune(
    config: RunConfig, protocol: str, prepared: Path, pretrained: Path, folder: Path, on_epoch: Progress | None = None
) -> dict[str, Any]:
    """Train one protocol's model in worker processes.

    Called again on a folder that a kill left behind, it goes on from the last checkpoint; on a finished
    folder it returns what is there.

    Args:
        config: the run's config.
        protocol: which split.
        prepared: folder of stage prepare.
        pretrained: folder of stage load_pretrained.
        folder: gets `bundle/`, `curves.json`, `figures.json`, `run.json` and `log.txt`.
        on_epoch: called with epoch, loss, validation_ndcg_at_10, learning_rate, seconds and phase after each epoch.

    Returns:
        Figures; see `nightloom.training.run.Training`.

    Raises:
        InputError: the folders do not fit each other.
        TrainingError: a worker failed for good.
    """
    figures = folder / "figures.json"
    if not figures.exists():
        folder.mkdir(parents=True, exist_ok=True)
        run = {
            "config": config.model_dump(mode="json"),
            "protocol": protocol,
            "prepared": str(prepared.resolve()),
            "pretrained": str(pretrained.resolve()),
            "out": str(folder.resolve()),
        }
        write_json(folder / "run.json", run)
        gpus = torch.cuda.device_count()
        workers = min(config.training.workers, gpus) if gpus else config.training.workers
        launch(folder / "run.json", workers, folder / "log.txt", on_epoch)
    content: dict[str, Any] = json.loads(figures.read_text(encoding="utf-8"))
    return content
