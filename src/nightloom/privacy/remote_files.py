"""Taking one person's id out of files that MLflow keeps elsewhere: behind its server, or in a store of objects.

Each file that may hold ids comes here, and goes back to its place where it held the id: whole, or not at all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from nightloom.privacy.redact import KINDS, redact
from nightloom.promotion.registry import Registry

RUNS_AT_ONCE = 500


def redact_runs(registry: Registry, experiment_id: str, user: str) -> int:
    """Take an id out of the files of an experiment's runs, deleted ones too; how many held it.

    Args:
        registry: by whose client files are read and written.
        experiment_id: MLflow's.
        user: the id.

    Raises:
        NightloomError: MLflow, or the store of its files, does not answer.
    """
    client, many = registry.client, 0
    with registry.tracking.reached():
        for run in _runs(client, experiment_id):
            for place in _files(client, run):
                if PurePosixPath(place).suffix not in KINDS:
                    continue
                with tempfile.TemporaryDirectory(prefix="nightloom-") as scratch:
                    path = Path(client.download_artifacts(run, place, scratch))
                    if redact(path, user):
                        folder = PurePosixPath(place).parent.as_posix()
                        client.log_artifact(run, str(path), None if folder == "." else folder)
                        many += 1
    return many


def _runs(client: Any, experiment_id: str) -> Iterator[str]:
    from mlflow.entities import ViewType

    token: str | None = None
    while token != "":
        page = client.search_runs([experiment_id], run_view_type=ViewType.ALL, max_results=RUNS_AT_ONCE, page_token=token)
        yield from (run.info.run_id for run in page)
        token = page.token or ""


def _files(client: Any, run: str, folder: str | None = None) -> Iterator[str]:
    for one in client.list_artifacts(run, folder):
        if one.is_dir:
            yield from _files(client, run, one.path)
        else:
            yield one.path
