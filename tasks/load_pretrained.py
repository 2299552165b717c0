"""Stage load_pretrained: the language model is found, checked, and reads the items' text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from nightloom.models.load_pretrained import load_pretrained as read_texts
from nightloom.stage import Manifest, Night, run_stage
from tasks.progress import made, tell, worth_retrying


@task(
    name="load-pretrained", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=exponential_backoff(10), retry_condition_fn=worth_retrying
)
def load_pretrained(night: Night, prepared: Manifest) -> Manifest:
    """Encode the items' text; vectors of texts seen on earlier nights come from the cache."""

    def progress(done: int, total: int) -> None:
        tell(f"load_pretrained: {done:,} of {total:,} texts encoded", done / max(total, 1))

    def body(folder: Path) -> dict[str, Any]:
        return read_texts(night.config.pretrained, prepared.path, night.root, folder, progress)

    sections = night.config.model_dump(mode="json", include={"pretrained"})
    manifest = run_stage(night, "load_pretrained", body, inputs=[prepared], config=sections)
    figures = manifest.figures
    return made(
        manifest, f"{figures['encoded']:,} texts encoded, {figures['reused']:,} from the cache, {figures['missing']:,} without text"
    )
