"""One night of a replay: prepared as of its moment, trained both ways, judged on the period that followed."""

from __future__ import annotations

from pathlib import Path
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
from nightloom.training.fine_tune import WORKER, Start, fine_tune
from nightloom.training.warm_start import SEARCH_FILE
from tasks.progress import artifact_key, log_done, report_progress, tell


@task(name="replay-night", cache_policy=NO_CACHE)
def replay_night(night: Night, checked: Manifest, moment: replay.Moment, before: Manifest | None, first: Manifest | None) -> Manifest:
    """Live one night of the past again; a killed replay finds the nights that are done and goes on in the one that is not."""
    config = night.config

    def body(folder: Path) -> dict[str, Any]:
        prepared, pretrained = folder / "prepared", folder / "pretrained"
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
        load_pretrained(config.pretrained, prepared, night.root, pretrained, lambda *_: None)
        warm = before.path / "warm" if before else None
        base = Start(warm / "bundle", warm / SEARCH_FILE) if warm else None
        arms: dict[str, Start | None] = {"scratch": None} | ({"warm": base} if base else {})
        figures = {
            arm: fine_tune(config, "temporal", prepared, pretrained, folder / arm, _epoch_reporter(moment, arm), start)
            for arm, start in arms.items()
        }
        if base is None:  # all arms begin as one model
            if not (folder / "warm").exists():
                (folder / "warm").symlink_to("scratch")
            figures["warm"] = figures["scratch"]
        frozen = (first.path if first else folder) / "scratch" / "bundle"
        bundles = {"scratch": folder / "scratch" / "bundle", "warm": folder / "warm" / "bundle", "frozen": frozen}
        judged = replay.judge(prepared, pretrained, bundles, exclude_seen=config.evaluation.exclude_seen)
        return {"day": moment.day} | replay.write(folder, judged, figures)

    manifest = run_stage(
        night,
        "replay",
        body,
        inputs=[one for one in (checked, before, first) if one],
        config=ReadKeys(config, *TRAINING, "pretrained.max_bad_images", "prepare", "evaluation.protocols", "data.tags_separator").values,
        code=[read_checked, replay.write_moment, load_pretrained, fine_tune, WORKER],
        results=("scratch/bundle/*", "warm/bundle/*"),
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


def _epoch_reporter(moment: replay.Moment, arm: str) -> Any:
    return lambda line: report_progress(f"{moment.day} {arm}: {line['phase']} epoch {line['epoch']}, loss {line['loss']:.3f}")
