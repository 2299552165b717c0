"""Stage collect: the sources become an immutable snapshot."""

from __future__ import annotations

import time
from collections.abc import Sequence

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from nightloom.core.errors import InputError
from nightloom.data.collect import collect as read_sources
from nightloom.data.sources.service_store import read_votes
from nightloom.privacy.forget import forget, forgotten_elsewhere
from nightloom.runs.nights import fetch_latest
from nightloom.runs.service_store import central_address, store_file
from nightloom.runs.stages import Manifest, Night, Usage
from nightloom.serving.store.erase import wishes
from tasks.progress import log_done, report_progress, worth_retrying


def _forget_who_asked(night: Night) -> None:
    """Take out of all files who asked the service to be forgotten since the last night; the service itself cleared its store alone.

    Where another run is at work nothing is done: the rows read below leave these people out all the same, and the next night is asked.
    """
    name = night.config.name
    asked = [user for user, _ in wishes(store_file(night.root, name), central_address())]
    for number, (user, elsewhere) in enumerate([*((user, False) for user in asked), *_others(night, asked)], 1):
        try:
            done = forget(name, user, night.root, elsewhere=elsewhere)
        except InputError as error:
            report_progress(f"collect: who asked the service to be forgotten is still in files of earlier nights. {error}")
            return
        report_progress(f"collect: person {number} who asked the service to be forgotten taken out of {done.files:,} files")


def _others(night: Night, asked: Sequence[str]) -> list[tuple[str, bool]]:
    """Who was forgotten on another machine that shares the store, and is still in files of this one."""
    return [(user, True) for user in forgotten_elsewhere(night.config.name, night.root) if user not in asked]


@task(
    name="collect",
    task_run_name="collect {night.config.name}",
    cache_policy=NO_CACHE,
    retries=3,
    retry_delay_seconds=exponential_backoff(5),
    retry_condition_fn=worth_retrying,
)
def collect(night: Night) -> Manifest:
    """Read the sources. This stage always runs: only reading tells whether they changed; its key is the content's hash."""
    began = time.perf_counter()
    _forget_who_asked(night)
    fetch_latest(night)
    with Usage() as usage:
        snapshot = read_sources(night.config.name, night.config.data, night.root, report_progress)
    night.storage.publish(snapshot.path.relative_to(night.root).as_posix())
    counts = ", ".join(f"{count:,} {table}" for table, count in snapshot.counts.items())
    figures = {
        "hash": snapshot.hash,
        "counts": dict(snapshot.counts),
        "left_out": snapshot.source.get("left_out", {}),
        "notes": snapshot.source.get("notes", []),
        "features": dict(snapshot.features),
        "licence": snapshot.licence,
        "reason_votes": read_votes(night.config.data.store, night.config.name, night.root),
    }
    manifest = Manifest(
        stage="collect",
        key=snapshot.hash[:16],
        folder=str(snapshot.path),
        figures=figures,
        seconds=round(time.perf_counter() - began, 3),
        peak_mb=round(usage.peak_mb, 1),
        cpu_seconds=round(usage.cpu_seconds, 2),
    )
    return log_done(manifest, f"{counts}, content {snapshot.hash[:12]}")
