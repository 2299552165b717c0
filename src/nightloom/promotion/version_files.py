"""The files of registered versions on this machine's disk: fetched once, checked by their digests, fetched again where damaged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nightloom.core.digests import differs, folder_digest, set_aside
from nightloom.core.errors import DamagedError, InputError, NightloomError
from nightloom.core.files import partial_folder
from nightloom.core.shell import typed
from nightloom.packaging import manifest
from nightloom.packaging.serving_format import FILE as SERVING_FILE
from nightloom.packaging.serving_format import ServingManifest
from nightloom.runs.tracking import Tracking

if TYPE_CHECKING:
    from nightloom.promotion.registered import Version

FILES_TAG = "nightloom.files_sha256"
"""Tag of a version: SHA-256 over the names and the content of its files, which is checked when they are fetched. Nightloom 0.2 set none."""


class UnreadableError(NightloomError):
    """The files of a registered version are gone, or hold no model."""


def fetched(tracking: Tracking, version: Version, home: Path, holds: str) -> Path | None:
    """The folder of a version that holds a file, fetched once, and again where it is damaged here; None where there is no such file.

    Args:
        tracking: MLflow, where the version is registered.
        version: which.
        home: folder that keeps fetched versions.
        holds: a file by which the folder is known.

    Raises:
        UnreadableError: its files are gone, or damaged where MLflow keeps them.
        NightloomError: MLflow, or the store of its files, does not answer.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    folder = place_of(version, home)
    if folder.exists():
        try:
            _check(folder, version, holds)
            return folder
        except DamagedError as damage:
            set_aside(folder, damage, f"version {version.version} is fetched again")
    with partial_folder(home) as scratch:
        with tracking.reached():
            place = tracking.client.get_model_version_download_uri(version.model, version.version)
            try:
                copied = download_artifacts(artifact_uri=place, dst_path=str(scratch), tracking_uri=tracking.uri)
            except (OSError, MlflowException) as error:
                if _away(error):
                    said = " ".join(str(error).split())[:200]
                    raise NightloomError(f"{place}: these files can not be reached now ({said}). Start again when they can.") from error
                raise UnreadableError(
                    f"{version.model} version {version.version}: its files can not be read from {place}. "
                    f"Bring them back from a backup, or go back a version: {typed('nightloom', 'rollback', version.name)}"
                ) from error
        found = next(Path(copied).rglob(holds), None)
        if found is None:
            return None
        try:
            _check(found.parent, version, holds)
        except DamagedError as damage:
            raise UnreadableError(
                f"{version.model} version {version.version} is damaged where MLflow keeps it, at {place}: "
                f"{damage.path.name}: {damage.found}. Bring the file back from a backup, or go back a version: "
                f"{typed('nightloom', 'rollback', version.name)}"
            ) from damage
        try:
            found.parent.rename(folder)
        except OSError:
            if not folder.exists():  # else another process fetched it first
                raise
    return folder


def place_of(version: Version, home: Path) -> Path:
    """Where a fetched version is kept."""
    return home / f"{version.model}-v{version.version}-{version.run_id[:8]}"


def _check(folder: Path, version: Version, holds: str) -> None:
    """Check a version's files by their own manifest, which names the damaged one, and by the version's tag.

    Raises:
        DamagedError: they are not those that were registered.
    """
    if not (folder / holds).is_file():
        raise DamagedError(folder / holds, "it is missing")
    if holds == SERVING_FILE:
        ServingManifest.read(folder)
        return
    if (folder / manifest.FILE).is_file():
        manifest.Manifest.read(folder).check(folder)
    expected = version.tags.get(FILES_TAG)
    if expected is not None and (found := folder_digest(folder)) != expected:
        raise DamagedError(folder, f"over all files {differs(found, expected)}")


def _away(error: BaseException) -> bool:
    """Whether it was the connection that failed, and not what is at its other end."""
    import requests

    while True:
        if isinstance(error, (ConnectionError, TimeoutError, requests.ConnectionError, requests.Timeout)):
            return True
        if isinstance(error, NightloomError):
            return not isinstance(error, InputError)
        if error.__context__ is None:
            return type(error).__name__ in ("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError")
        error = error.__context__
