"""Text encoders that versions share: kept once beside the registered versions, `encoders/<name>` where MLflow keeps files.

An encoder that a version has for itself alone lies in its serving artefact instead.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nightloom.core.digests import differs, folder_digest
from nightloom.core.errors import DamagedError, NightloomError
from nightloom.core.files import partial_folder
from nightloom.packaging.serving_format import TEXT_ENCODER, ServingManifest
from nightloom.runs.tracking import Tracking

HOME = "encoders"
log = logging.getLogger("nightloom.promotion")


def keep(tracking: Tracking, recommender: str, folder: Path) -> None:
    """Keep an exported encoder beside the versions of a recommender, unless it is there whole.

    Raises:
        NightloomError: MLflow, or the store of its files, does not answer.
    """
    from mlflow.exceptions import MlflowException

    there = _repository(tracking, recommender, folder.name)
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    try:
        if {one.path: one.file_size for one in there.list_artifacts()} != sizes:
            there.log_artifacts(str(folder))
    except (OSError, MlflowException) as error:
        raise NightloomError(f"the text encoder can not be kept beside the versions of {recommender} ({error}). Start again.") from error


def fetch(tracking: Tracking, recommender: str, artefact: Path, cache: Path) -> Path | None:
    """The text encoder of a serving artefact on this machine's disk, fetched once.

    Args:
        tracking: where it was kept.
        recommender: the config's name.
        artefact: the serving artefact.
        cache: folder of the caches, `<mlruns>/cache`.

    Returns:
        Its folder; None where the artefact names none, or it can not be had, of which the log says why.
    """
    said = ServingManifest.read(artefact).text_encoder
    if said is None:
        return None
    if said["tuned"]:
        return artefact / TEXT_ENCODER
    try:
        return _fetched(tracking, recommender, said, cache / HOME)
    except (NightloomError, OSError) as error:
        log.warning("the service reads no texts: the text encoder %s can not be had: %s", said["name"], error)
        return None


def _fetched(tracking: Tracking, recommender: str, said: Mapping[str, Any], home: Path) -> Path:
    from mlflow.exceptions import MlflowException

    folder = home / said["name"]
    if folder.is_dir() and folder_digest(folder) == said["sha256"]:
        return folder
    with partial_folder(home) as scratch:
        made = scratch / said["name"]
        made.mkdir()
        try:
            _repository(tracking, recommender, said["name"]).download_artifacts("", str(made))
        except MlflowException as error:
            raise NightloomError(" ".join(str(error).split())[:200]) from error
        if (found := folder_digest(made)) != said["sha256"]:
            raise DamagedError(made, differs(found, said["sha256"]))
        if folder.exists():
            folder.rename(scratch / "damaged")
        made.rename(folder)
    return folder


def _repository(tracking: Tracking, recommender: str, name: str) -> Any:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with tracking.reached():
        experiment = tracking.client.get_experiment(tracking.experiment(recommender))
    return get_artifact_repository(f"{experiment.artifact_location.rstrip('/')}/{HOME}/{name}", tracking_uri=tracking.uri)
