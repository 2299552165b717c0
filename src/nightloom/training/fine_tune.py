"""Stage fine_tune: from prepared data and a pretrained language model to a bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from nightloom.core.files import write_json
from nightloom.training.at_once import AtOnce
from nightloom.training.launch import Progress, check_crowd, launch
from nightloom.training.ray_job import BEAT, launch_on_ray
from nightloom.training.ray_workers import SCRATCH
from nightloom.training.transfer import Transfer
from nightloom.training.warm_start import START_FILE, ColdStart, write_start

if TYPE_CHECKING:
    from nightloom.config import RunConfig

WORKER = "nightloom.training.__main__"
"""Module that the worker processes run."""


class Start(NamedTuple):
    """A model of an earlier night.

    Attributes:
        bundle: its bundle.
        search: its weights from before its validation cutoff; the file need not be there.
    """

    bundle: Path
    search: Path


def fine_tune(
    config: RunConfig,
    protocol: str,
    prepared: Path,
    pretrained: Path,
    folder: Path,
    on_epoch: Progress | None = None,
    champion: Start | None = None,
    transfer: Transfer | None = None,
    beside: AtOnce[Any] | None = None,
) -> dict[str, Any]:
    """Train one protocol's model in worker processes.

    Called again on a folder that a kill left behind, it goes on from the last checkpoint; on a finished
    folder it returns what is there.

    Args:
        config: the run's config.
        protocol: which split.
        prepared: folder of stage prepare.
        pretrained: folder of stage load_pretrained.
        folder: gets `bundle/`, `search.safetensors`, `curves.json`, `figures.json`, `run.json` and `log.txt`.
        on_epoch: called with epoch, loss, validation_ndcg_at_10, learning_rate, seconds and phase after each epoch.
        champion: model to start from, if the config asks for it and it may be used; None trains from scratch.
        transfer: another domain's model to start from instead.
        beside: the trainings that it shares the cores with, and ends with.

    Returns:
        Figures; see `nightloom.training.run.Training`. `warm_start` says what was taken from the champion (see
        `nightloom.training.warm_start.write_start`), or is null, and `cold_because` says why.

    Raises:
        InputError: the folders do not fit each other.
        TrainingError: a worker failed for good.
        Halted: those beside it are not gone on with.
    """
    figures = folder / "figures.json"
    if not figures.exists():
        folder.mkdir(parents=True, exist_ok=True)
        run: dict[str, Any] = {
            "config": config.model_dump(mode="json"),
            "protocol": protocol,
            "prepared": str(prepared.resolve()),
            "pretrained": str(pretrained.resolve()),
            "out": str(folder.resolve()),
        }
        warm, cold = None, "no model to start from" if config.training.warm_start else "training.warm_start is false"
        if transfer is not None:
            run["start"] = transfer.write_start(config.model, prepared, pretrained, folder)
            cold = "the start is another domain's model"
        elif champion is not None and config.training.warm_start:
            try:
                warm = write_start(run["config"], protocol, prepared, pretrained, champion.bundle, champion.search, folder)
                run["start"] = {"file": START_FILE, "sha256": warm["sha256"]}
            except ColdStart as reason:
                cold = str(reason)
        run |= {"warm_start": warm, "cold_because": None if warm else cold}
        write_json(folder / "run.json", run)
        if config.training.launcher == "ray":
            launch_on_ray(folder / "run.json", config.training.workers, folder / "log.txt", on_epoch, beside)
        else:
            launch(folder / "run.json", _workers_here(config), folder / "log.txt", on_epoch, beside)
    for left in (START_FILE, BEAT):  # by a night that was killed, too, where its job was done without it
        (folder / left).unlink(missing_ok=True)
    shutil.rmtree(folder / SCRATCH, ignore_errors=True)
    content: dict[str, Any] = json.loads(figures.read_text(encoding="utf-8"))
    said = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return content | {key: said.get(key) for key in ("warm_start", "cold_because")}


def check_at_once(config: RunConfig, at_once: int) -> None:
    """Refuse so many trainings side by side that this machine would have far too many processes; a cluster has them wait.

    Args:
        config: the run's config.
        at_once: trainings.

    Raises:
        InputError: there would be far more processes than cores.
    """
    if config.training.launcher != "ray":
        check_crowd(_workers_here(config), at_once)


def _workers_here(config: RunConfig) -> int:
    gpus = torch.cuda.device_count()
    return min(config.training.workers, gpus) if gpus else config.training.workers
