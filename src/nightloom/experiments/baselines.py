"""Baselines side by side: each is fitted and ranked in a process of its own, on the same queries, from the same events.

A process each keeps random numbers, memory and CPU seconds apart. With `training.launcher: ray` they are processes of the cluster's nodes.

    python -m nightloom.experiments.baselines WORK.json
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from nightloom.config import RunConfig, config_from_dict
from nightloom.core.errands import run_errand
from nightloom.core.errors import InputError, TrainingError
from nightloom.core.files import write_json
from nightloom.core.metrics import per_query
from nightloom.core.ranking import ranks
from nightloom.core.recommender import Recommender
from nightloom.core.sequences import Histories
from nightloom.core.threads import cores
from nightloom.evaluation.evaluate import Results, note
from nightloom.evaluation.held_out import SCHEMA, held_out
from nightloom.experiments.arguments import VARIANTS
from nightloom.models.baselines.named import build
from nightloom.packaging.bundle import Bundle
from nightloom.runs.processes import cpu_seconds, tie_to_parent
from nightloom.training.fine_tune import fine_tune
from nightloom.training.launch import environment
from nightloom.training.ray_errands import Errand, run_errands

LOG_TAIL = 20
MODULE = "nightloom.experiments.baselines"


def varied(config: RunConfig, family: str) -> RunConfig:
    """The config of an ablation of the full model; any other name gets the config unchanged."""
    if not VARIANTS.get(family):
        return config
    content = config.model_dump(mode="json")
    content["model"] |= VARIANTS[family]
    return config_from_dict(content, f"family {family}")


def measure(
    config: RunConfig, family: str, prepared: Path, pretrained: Path, folder: Path, progress: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Fit and rank one model under every protocol of the config, in a process of its own with one thread.

    Args:
        config: the run's configuration, before the overrides of an ablation.
        family: one of `EVERY`.
        prepared: folder of stage prepare.
        pretrained: folder of stage load_pretrained.
        folder: gets `<protocol>/` with the model, `per_user.parquet`, `result.json` and `log.txt`.
        progress: called with a line of progress.

    Returns:
        The content of `result.json`: `family`, `metrics` and `intervals` (protocol -> metric -> ...), `fit_cpu_seconds`,
        `seconds` and `curves` by protocol, `users` by protocol, `peak_mb`.

    Raises:
        InputError: the model refuses the data.
        TrainingError: the process failed; holds the end of its log.
    """
    # A family that is trained is a job of the cluster's already, which waits for its end here.
    elsewhere = config.training.launcher == "ray" and family not in VARIANTS
    content = {"config": config.model_dump(mode="json"), "family": family, "folder": str(folder), "prepared": str(prepared)}
    write_json(folder / "work.json", content | {"pretrained": str(pretrained), "parent": None if elsewhere else os.getpid()})

    def own(line: str) -> None:
        if line.startswith(f"{family}: "):  # Ray's lines and warnings are in the log
            progress(line)

    errand = Errand(folder / "work.json", folder / "log.txt", own)
    code = run_errands(MODULE, [errand])[0] if elsewhere else _run(folder, progress)
    tail = "\n".join((folder / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL:])
    if code == InputError.exit_code:
        raise InputError(tail)
    if code:
        raise TrainingError(f"family {family} failed (exit code {code}). The end of {folder / 'log.txt'}:\n{tail}")
    result: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return result


def _run(folder: Path, progress: Callable[[str], None]) -> int:
    """The exit code of a process on this machine."""
    command = [sys.executable, "-m", MODULE, str(folder / "work.json")]
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment(cores()))
        try:
            for line in process.stdout or ():
                progress(line.strip())
            return process.wait()
        finally:
            process.kill()
            process.wait()


def work(config: RunConfig, family: str, prepared: Path, pretrained: Path, folder: Path, progress: Callable[[str], None]) -> None:
    """The work of the process: fit and rank the model under every protocol, and write the files of `measure`."""
    items, users = pd.read_parquet(prepared / "items.parquet"), pd.read_parquet(prepared / "users.parquet")
    results = Results()
    figures: dict[str, dict[str, Any]] = {name: {} for name in ("fit_cpu_seconds", "seconds", "curves", "asked")}
    with pq.ParquetWriter(folder / "per_user.parquet", SCHEMA) as writer:
        for protocol in config.evaluation.protocols:
            held = held_out(protocol, prepared, items, users, exclude_seen=config.evaluation.exclude_seen)
            (folder / protocol).mkdir(exist_ok=True)
            began, cpu = time.perf_counter(), cpu_seconds()
            if family in VARIANTS:
                model, curves = _tuned(varied(config, family), family, protocol, prepared, pretrained, folder / protocol, progress)
            else:
                model, curves = _fitted(family, config.training.seed, held.train, len(items), folder / protocol)
            figures["fit_cpu_seconds"][protocol] = round(cpu_seconds() - cpu, 3)
            figures["seconds"][protocol] = round(time.perf_counter() - began, 3)
            figures["curves"][protocol], figures["asked"][protocol] = curves, held.said
            ranked = ranks(model, held.queries, exclude_seen=config.evaluation.exclude_seen)
            vectors = per_query(ranked.ranks, ranked.offsets)
            note(results, family, protocol, held, ranked, vectors, config.promotion.confidence)
            writer.write_table(held.rows(family, protocol, ranked))
            progress(f"{family}: fitted and ranked, {protocol}, {held.said}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = {"family": family, "metrics": results.metrics[family], "intervals": results.intervals[family], "peak_mb": round(peak, 1)}
    write_json(folder / "result.json", found | figures)


def _fitted(family: str, seed: int, train: Histories, n_items: int, folder: Path) -> tuple[Recommender, list[dict[str, Any]]]:
    model = build(family, seed).fit(train, n_items)
    model.save(folder)
    return model, getattr(model, "curves", [])


def _tuned(
    config: RunConfig, family: str, protocol: str, prepared: Path, pretrained: Path, folder: Path, progress: Callable[[str], None]
) -> tuple[Recommender, list[dict[str, Any]]]:
    def on_epoch(line: dict[str, Any]) -> None:
        progress(f"{family}: {protocol}, epoch {line['epoch']}, loss {line['loss']:.3f}")

    fine_tune(config, protocol, prepared, pretrained, folder, on_epoch)
    return Bundle.load(folder / "bundle").recommender, json.loads((folder / "curves.json").read_text(encoding="utf-8"))


def _alone(given: dict[str, Any]) -> None:
    """Do what `measure` wrote down."""
    if given["parent"] is not None:
        tie_to_parent(given["parent"])
    prepared, pretrained, folder = (Path(given[name]) for name in ("prepared", "pretrained", "folder"))

    def progress(words: str) -> None:
        print(words, flush=True)  # noqa: T201

    work(config_from_dict(given["config"]), given["family"], prepared, pretrained, folder, progress)


if __name__ == "__main__":
    sys.exit(run_errand(Path(sys.argv[1]), _alone))
