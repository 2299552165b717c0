"""Stage load_pretrained: the pretrained models are found, checked, and read the items' texts and see their pictures."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from nightloom.core.errors import ContractBroken
from nightloom.encoders.load_images import UNREAD
from nightloom.encoders.load_pretrained import fingerprints
from nightloom.encoders.load_pretrained import load_pretrained as read_items
from nightloom.runs.keys import ReadKeys
from nightloom.runs.stages import Manifest, Night, run_stage
from nightloom.training.ray_texts import encode_on_ray
from tasks.progress import log_done, report_progress, worth_retrying


@task(
    name="load-pretrained",
    task_run_name="load-pretrained {night.config.name}",
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=exponential_backoff(10),
    retry_condition_fn=worth_retrying,
)
def load_pretrained(night: Night, prepared: Manifest) -> Manifest:
    """Encode the items' texts and pictures; vectors of what earlier nights have seen come from the cache."""
    config, training = night.config.pretrained, night.config.training
    models = fingerprints(config, prepared.path)

    def body(folder: Path) -> dict[str, Any]:
        elsewhere = encode_on_ray(folder / "ray", training.workers) if training.launcher == "ray" else None
        told = _epoch_reporter("texts"), _epoch_reporter("pictures")
        try:
            figures = read_items(config, prepared.path, night.root, folder, *told, elsewhere)
        except ContractBroken as broken:  # an unfinished stage's folder is made anew by the next run: what was found stays in the night's
            keep_unread(folder, night)
            raise broken.moved(night.folder) from None
        return figures | {"fingerprints": models}

    manifest = run_stage(
        night,
        "load_pretrained",
        body,
        inputs=[prepared],
        config=ReadKeys(night.config, "pretrained").values,
        code=[read_items],
        results=("*_vectors.npy", "*_mask.npy", "texts.json"),
        salt=" ".join(models.values()),
    )
    figures, images = manifest.figures, manifest.figures["images"]
    words = f"{figures['encoded']:,} texts encoded, {figures['reused']:,} from the cache, {figures['missing']:,} without text"
    if images:
        keep_unread(manifest.path, night)
        words += f"; {images['encoded']:,} pictures encoded, {images['reused']:,} from the cache, "
        words += f"{images['items'] - images['with_image']:,} of {images['items']:,} items without picture"
        words += f", {images['unreadable']:,} pictures can not be read ({UNREAD})" if images["unreadable"] else ""
    return log_done(manifest, words)


def keep_unread(folder: Path, night: Night) -> None:
    """Copy the list of pictures that can not be read into the night's folder."""
    night.folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / UNREAD, night.folder / UNREAD)


def _epoch_reporter(what: str) -> Callable[[int, int], None]:
    return lambda done, total: report_progress(f"load_pretrained: {done:,} of {total:,} {what} encoded", done / max(total, 1))
