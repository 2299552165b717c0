"""The nights of a replay: trained from scratch as of their moments, side by side; then warm, one after the other, and judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from expectations.run import read_checked
from nightloom.core.files import write_json
from nightloom.encoders.load_pretrained import load_pretrained
from nightloom.experiments import replay
from nightloom.runs.keys import TRAINING, ReadKeys
from nightloom.runs.nights import publish_folder
from nightloom.runs.stages import Manifest, Night, run_stage
from nightloom.runs.tracking import Tracking
from nightloom.training.at_once import AtOnce
from nightloom.training.fine_tune import WORKER, Start, check_at_once, fine_tune
from nightloom.training.warm_start import SEARCH_FILE
from tasks.progress import artifact_key, log_done, report_progress, tell


@task(name="replay-scratch", cache_policy=NO_CACHE)
def replay_scratch(night: Night, checked: Manifest, moments: Sequence[replay.Moment], at_once: int) -> list[Manifest]:
    """Prepare every night and train it from scratch. None needs another, so several train side by side."""
    config, preparing = night.config, Lock()
    most = min(at_once, len(moments))
    check_at_once(config, most)

    def live(moment: replay.Moment) -> Manifest:
        def body(folder: Path) -> dict[str, Any]:
            prepared, pretrained = folder / "prepared", folder / "pretrained"
            with preparing:  # in the memory of this process
                trainings.check()
                if not (prepared / "meta.json").exists():
                    prepared.mkdir(exist_ok=True)
                    replay.write_moment(
                        read_checked(checked.path),
                        moment,
                        prepared,
                        rules=config.prepare,
                        evaluation=config.evaluation,
                        tags_separator=config.data.tags_separator,
                    )
                pretrained.mkdir(exist_ok=True)
                load_pretrained(config.pretrained, prepared, night.root, pretrained, lambda *_: trainings.check())

            def told(line: dict[str, Any]) -> None:
                trainings.tell(partial(_report_epoch, moment, "scratch", line))

            return fine_tune(config, "temporal", prepared, pretrained, folder / "scratch", told, beside=trainings)

        manifest = run_stage(
            night,
            "replay_scratch",
            body,
            inputs=[checked],
            config=ReadKeys(
                config, *TRAINING, "pretrained.max_bad_images", "prepare", "evaluation.protocols", "data.tags_separator"
            ).values,
            code=[read_checked, replay.write_moment, load_pretrained, fine_tune, WORKER],
            results=("prepared/*", "pretrained/*.npy", "scratch/bundle/*"),
            salt=f"{moment.at} {moment.until}",
            resumable=True,
        )
        trainings.tell(partial(log_done, manifest, f"{moment.day}, trained from scratch"))
        return manifest

    with AtOnce[Manifest](most) as trainings:
        begun = [trainings.start(partial(live, moment)) for moment in moments]
        while trainings.under_way:
            trainings.ended().result()
        return [one.result() for one in begun]


@task(name="replay-night", cache_policy=NO_CACHE)
def replay_night(night: Night, moment: replay.Moment, scratch: Manifest, before: Manifest | None, first: Manifest) -> Manifest:
    """Live one night of the past again; a killed replay finds the nights that are done and goes on in the one that is not.

    Args:
        night: the replay's files.
        moment: when.
        scratch: the night, prepared and trained from scratch.
        before: the night before it as this gave it; None for the first.
        first: the first night, trained from scratch: what is frozen, and where warm nights begin.
    """
    config = night.config

    def body(folder: Path) -> dict[str, Any]:
        prepared, pretrained = scratch.path / "prepared", scratch.path / "pretrained"
        bundles = {
            "scratch": scratch.path / "scratch" / "bundle",
            "warm": folder / "warm" / "bundle",
            "frozen": first.path / "scratch" / "bundle",
        }
        figures = {"scratch": scratch.figures}
        if before is None:  # all arms begin as one model
            figures["warm"], bundles["warm"] = scratch.figures, bundles["scratch"]
        else:
            warm = before.path / "warm" if (before.path / "warm").exists() else first.path / "scratch"
            start = Start(warm / "bundle", warm / SEARCH_FILE)
            told = partial(_report_epoch, moment, "warm")
            figures["warm"] = fine_tune(config, "temporal", prepared, pretrained, folder / "warm", told, start)
        judged = replay.judge(prepared, pretrained, bundles, exclude_seen=config.evaluation.exclude_seen)
        return {"day": moment.day} | replay.write(folder, judged, figures)

    manifest = run_stage(
        night,
        "replay",
        body,
        inputs=[one for one in (first, scratch, before) if one],
        config=ReadKeys(config, *TRAINING, "evaluation.protocols").values,
        code=[replay.judge, fine_tune, WORKER],
        results=("warm/bundle/*", "per_user.parquet"),
        salt=f"{moment.at} {moment.until}",
        resumable=True,
    )
    quality = ", ".join(f"{arm} {value:.4f}" for arm, value in manifest.figures[replay.METRIC].items())
    return log_done(manifest, f"{moment.day}, {manifest.figures['users']:,} users, NDCG@10 {quality}")


@task(name="replay-summary", cache_policy=NO_CACHE)
def summarise(night: Night, run: str, nights: list[Manifest], table: Path | None) -> dict[str, Any]:
    """Table, ratios and plot of a whole replay: in the night's folder, in MLflow and in Prefect."""
    import pandas as pd

    lines = [one.figures for one in nights]
    found = replay.summary([pd.read_parquet(one.path / "per_user.parquet") for one in nights], lines, night.config.promotion.confidence)
    text, plot = replay.markdown(lines, found), night.folder / "replay.png"
    replay.plot(plot, lines, f"{night.config.name}: trained every night against frozen")
    write_json(night.folder / "replay.json", found | {"nights": lines})
    (night.folder / "replay.md").write_text(text, encoding="utf-8")
    if table is not None:
        table.write_text(text, encoding="utf-8")
    tracking = Tracking(night.root)
    for name in ("replay.json", "replay.md", "replay.png"):
        tracking.client.log_artifact(run, str(night.folder / name))
    for step, line in enumerate(lines):
        for arm, value in line[replay.METRIC].items():
            tracking.client.log_metric(run, f"replay/{arm}/{replay.METRIC}", value, step=step)
    tracking.client.log_metric(run, "replay/warm_over_scratch", found["ratios"]["warm/scratch"]["value"])
    tracking.client.log_metric(run, "replay/warm_cpu_share", found["cpu_share"])
    key = artifact_key("replay", night.config.name)
    tell(create_markdown_artifact, text, key=key, description="Nights of the past, retrained against frozen")
    tell(
        create_table_artifact, [{"night": line["day"], "users": line["users"]} | line[replay.METRIC] for line in lines], key=f"{key}-nights"
    )
    publish_folder(night)
    return {"table": text, "folder": str(night.folder)} | found


def _report_epoch(moment: replay.Moment, arm: str, line: Mapping[str, Any]) -> None:
    report_progress(f"{moment.day} {arm}: {line['phase']} epoch {line['epoch']}, loss {line['loss']:.3f}")
