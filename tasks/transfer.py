"""Transfer between domains: the source trained once, then what a share of the target's users adds, and the comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from nightloom.config import RunConfig
from nightloom.core.files import write_json
from nightloom.core.sequences import Sequences
from nightloom.data.subsets.merged_domains import write_merged_domains
from nightloom.data.subsets.user_subset import draw_users, write_user_subset
from nightloom.experiments import transfer
from nightloom.runs.keys import TRAINING, ReadKeys
from nightloom.runs.nights import publish_folder
from nightloom.runs.stages import Manifest, Night, run_stage
from nightloom.runs.tracking import Tracking
from nightloom.training.fine_tune import WORKER, fine_tune
from nightloom.training.transfer import Transfer, same_items
from tasks.progress import artifact_key, log_done, report_progress, tell


@task(name="transfer-source", cache_policy=NO_CACHE)
def train_source(night: Night, prepared: Manifest, pretrained: Manifest, target: Manifest, same_users: bool, shared: bool) -> Manifest:
    """Train the source domain's model, without the users of the target and, under temporal, without its future."""
    protocol = night.config.evaluation.protocols[0]

    def body(folder: Path) -> dict[str, Any]:
        learned = transfer.write_source(prepared.path, target.path, protocol, folder / "prepared", same_users=same_users)
        figures = fine_tune(night.config, protocol, folder / "prepared", pretrained.path, folder / "model", _epoch_reporter("source"))
        same = int((_same(prepared.path, target.path) >= 0).sum()) if shared else 0
        return figures | learned | {"left_out": prepared.figures["users"] - learned["users"], "same": same}

    manifest = run_stage(
        night,
        "transfer_source",
        body,
        inputs=[prepared, pretrained, target],
        config=_read(night.config, pretrained),
        code=[transfer.write_source, fine_tune, WORKER],
        results=("prepared/*", "model/bundle/*"),
        salt=str(same_users),
        resumable=True,
    )
    said = f"{manifest.figures['users']:,} users learned from, {manifest.figures['left_out']:,} of both domains left out"
    return log_done(manifest, f"{said}, validation NDCG@10 {manifest.figures['validation_ndcg_at_10']:.4f}")


@task(name="transfer-share", task_run_name="transfer share {share}", cache_policy=NO_CACHE)
def learn_share(night: Night, source: Manifest, prepared: Manifest, pretrained: Manifest, share: float, shared: bool) -> Manifest:
    """Train every arm on a share of the target's users and ask all about the same test; a killed one goes on where it was.

    Where items are shared, the arms that start from the source learn from its histories too, if these are more than the target's.
    """
    config, protocol = transfer.arms_config(night.config), night.config.evaluation.protocols[0]

    def body(folder: Path) -> dict[str, Any]:
        part, theirs, bundle = folder / "prepared", source.path / "prepared", source.path / "model" / "bundle"
        users = draw_users(Sequences.load(prepared.path / f"sequences_{protocol}.npz"), share, config.training.seed)
        # A model of a part of the users has never met the test users, so users held out of that part choose its epoch.
        learned = write_user_subset(prepared.path, users, protocol, part, config.training.seed if share < 1 else None)
        together = part
        if shared:
            joined = write_merged_domains(part, theirs, _same(theirs, part), protocol, folder / "together")
            if joined["events"] > learned["events"]:  # a smaller source only dilutes what is there: benchmarks/transfer.md
                learned["together"], together = joined, folder / "together"
        starts = {"adapter": Transfer(bundle, "adapter", shared), "full": Transfer(bundle, "full", shared), "scratch": None}
        figures = {
            arm: fine_tune(
                config,
                protocol,
                together if start else part,
                pretrained.path,
                folder / arm,
                _epoch_reporter(f"{share:g} {arm}"),
                transfer=start,
            )
            for arm, start in starts.items()
        }
        bundles = {arm: folder / arm / "bundle" for arm in starts}
        left_out = config.evaluation.exclude_seen
        judged = transfer.judge(protocol, prepared.path, pretrained.path, part, bundle, bundles, exclude_seen=left_out, shared=shared)
        judged.to_parquet(folder / "per_user.parquet", index=False)
        return transfer.line_of(share, judged, learned, figures, config.promotion.confidence)

    manifest = run_stage(
        night,
        "transfer",
        body,
        inputs=[source, prepared, pretrained],
        config=_read(config, pretrained, "promotion.confidence"),
        code=[transfer.judge, fine_tune, WORKER],
        salt=f"{share:g} {shared}",
        resumable=True,
    )
    quality = ", ".join(f"{arm.replace('_', ' ')} {manifest.figures[transfer.METRIC][arm]:.4f}" for arm in transfer.ARMS)
    return log_done(manifest, f"{share:.0%} of the users, NDCG@10 {quality}")


@task(name="transfer-summary", cache_policy=NO_CACHE)
def summarise(night: Night, run: str, source: Manifest, shares: Sequence[Manifest], table: Path | None) -> dict[str, Any]:
    """Table, differences and plot: in the night's folder, in MLflow and in Prefect."""
    lines, confidence = [one.figures for one in shares], night.config.promotion.confidence
    title = night.config.name.replace("-to-", " to ")
    text = transfer.markdown(lines, source.figures, title, confidence)
    transfer.plot(night.folder / "transfer.png", lines, f"{title}: what was carried over, by what is learned in the target")
    rows = [pd.read_parquet(one.path / "per_user.parquet").assign(share=one.figures["share"]) for one in shares]
    pd.concat(rows, ignore_index=True).to_parquet(night.folder / "per_user.parquet", index=False)
    write_json(night.folder / "transfer.json", {"source": source.figures, "shares": lines})
    (night.folder / "transfer.md").write_text(text, encoding="utf-8")
    if table is not None:
        table.write_text(text, encoding="utf-8")
    tracking = Tracking(night.root)
    for name in ("transfer.json", "transfer.md", "transfer.png", "per_user.parquet"):
        tracking.client.log_artifact(run, str(night.folder / name))
    for step, line in enumerate(lines):
        for arm, value in line[transfer.METRIC].items():
            tracking.client.log_metric(run, f"transfer/{arm}/{transfer.METRIC}", value, step=step)
    tell(create_markdown_artifact, text, key=artifact_key("transfer", night.config.name), description="Transfer between domains")
    publish_folder(night)
    return {"table": text, "folder": str(night.folder), "shares": lines}


def _read(config: RunConfig, pretrained: Manifest, *more: str) -> dict[str, Any]:
    """What of the config, and of the pretrained models' files, a training reads."""
    read = ReadKeys(config, *TRAINING, *more).values | {"protocol": config.evaluation.protocols[0]}
    return read | {"fingerprints": pretrained.figures.get("fingerprints")}


def _same(source: Path, target: Path) -> NDArray[np.int64]:
    """Of each item of the target, the item of the source with the same text; see `same_items`."""
    return same_items(*(pd.read_parquet(place / "items.parquet")["text"] for place in (source, target)))


def _epoch_reporter(words: str) -> Any:
    return lambda line: report_progress(f"{words}: {line['phase']} epoch {line['epoch']}, loss {line['loss']:.3f}")
