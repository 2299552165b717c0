"""The model registry: the only file that touches it. `champion` serves, `previous` is the one before, `challenger` the last registered.

A version is registered only when the gate lets it pass, so a rejected night, or a dry run, leaves the registry as it was; the
bundle of such a night stays in its stage folder for study.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from nightloom.core.errors import InputError, NightloomError
from nightloom.core.shell import typed
from nightloom.packaging.log_model import log_model
from nightloom.packaging.served import Served, recommender
from nightloom.packaging.serving_format import FILE as SERVING_FILE
from nightloom.packaging.serving_format import FOLDER as SERVING
from nightloom.runs.tracking import Tracking

CHAMPION, CHALLENGER, PREVIOUS, ANCHOR = "champion", "challenger", "previous", "anchor"
TRAINED_TAG = "nightloom.trained"
"""Tag of a version: key of the stage that trained it and the protocol, by which a night that was killed and started again finds it."""
CLICKS = "-clicks"
"""Ends the name of a click head, which is registered beside the recommender of the same config."""
DESCRIPTION_LENGTH = 5000
"""What MLflow's database keeps of a version's description; the whole card is a file beside the model."""


@dataclass(frozen=True)
class Version:
    """One registered version.

    Attributes:
        model: registered name, `nightloom-<name>`.
        version: its number.
        run_id: the MLflow run that made it.
        tags: hashes and the night.
        aliases: names that point at it.
        created: when it was registered, UTC.
    """

    model: str
    version: str
    run_id: str
    tags: Mapping[str, str]
    aliases: tuple[str, ...] = ()
    created: datetime = field(default=datetime.fromtimestamp(0, UTC))

    @property
    def name(self) -> str:
        """The config's name."""
        return self.model.removeprefix("nightloom-")


class Registry:
    """Registered recommenders.

    Args:
        root: the mlruns folder.

    Raises:
        NightloomError: from every method, when MLflow's server or database can not be reached.
    """

    def __init__(self, root: Path) -> None:
        self.tracking = Tracking(root)
        self.client = self.tracking.client

    def versions(self, name: str) -> list[Version]:
        """All versions, the newest first; none when nothing was registered under the name."""
        with self._reached():
            model = self._model(name)
            if model is None:
                return []
            found = self.client.search_model_versions(f"name = '{model.name}'")
        return sorted((_version(one, model.aliases) for one in found), key=lambda one: int(one.version), reverse=True)

    def find(self, name: str, alias: str) -> Version | None:
        """The version that holds an alias, or None."""
        with self._reached():
            model = self._model(name)
            if model is None or alias not in model.aliases:
                return None
            return _version(self.client.get_model_version(model.name, model.aliases[alias]), model.aliases)

    def champion(self, name: str) -> Version | None:
        """The version that serves."""
        return self.find(name, CHAMPION)

    def standing(self, name: str, trained: str) -> Version | None:
        """The version that a challenger is compared with: the champion or, where that is the challenger itself, the one before.

        A night that was killed after it had promoted its challenger finds that one as champion when it is started again.

        Args:
            name: the config's name.
            trained: the challenger's `TRAINED_TAG`.
        """
        champion = self.champion(name)
        return self.find(name, PREVIOUS) if champion and champion.tags.get(TRAINED_TAG) == trained else champion

    def rivals(self, name: str, trained: str) -> dict[str, Version]:
        """The versions that a challenger is compared with, by alias: the champion as `standing` finds it, and the anchor.

        The anchor is left out where it is the champion, or the challenger itself.
        """
        champion, anchor = self.standing(name, trained), self.find(name, ANCHOR)
        if champion is None:
            return {}
        other = anchor is not None and anchor.version != champion.version and anchor.tags.get(TRAINED_TAG) != trained
        return {CHAMPION: champion} | ({ANCHOR: anchor} if other and anchor else {})

    def aliases(self, name: str) -> dict[str, str | None]:
        """Version by alias, None where an alias is not set."""
        with self._reached():
            model = self._model(name)
        held = model.aliases if model else {}
        return {alias: str(held[alias]) if alias in held else None for alias in (CHAMPION, CHALLENGER, PREVIOUS, ANCHOR)}

    def names(self) -> list[str]:
        """Names of the recommenders that have a champion, sorted; click heads are none."""
        with self._reached():
            models = [one for one in self.client.search_registered_models() if one.name.startswith("nightloom-")]
        found = [one.name.removeprefix("nightloom-") for one in models if CHAMPION in one.aliases]
        return sorted(name for name in found if not name.endswith(CLICKS))

    def excludes_seen(self, version: Version) -> bool:
        """Whether a version leaves items of the history out unless a request says otherwise, as its signature has it."""
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        with self._reached(), tempfile.TemporaryDirectory(prefix="nightloom-") as scratch:
            place = self.client.get_model_version_download_uri(version.model, version.version)
            try:  # not mlflow.models, which asks the address of the process
                path = download_artifacts(artifact_uri=f"{place}/MLmodel", dst_path=scratch, tracking_uri=self.tracking.uri)
                said = yaml.safe_load(Path(path).read_text(encoding="utf-8"))["signature"]["params"]
            except (OSError, KeyError, TypeError, yaml.YAMLError, MlflowException) as error:
                raise NightloomError(f"{version.model} version {version.version}: its MLmodel can not be read from {place}.") from error
        return bool({one["name"]: one["default"] for one in json.loads(said or "[]")}.get("exclude_seen", True))

    def fetch(self, version: Version, home: Path, holds: str = "meta.json") -> Path:
        """The files of a version on this machine's disk; fetched once.

        Args:
            version: which.
            home: folder that keeps fetched versions.
            holds: a file by which their folder is known: one that bundles of every format have, or `clicks.json` of a click head.

        Raises:
            NightloomError: the version's files are gone, or hold no bundle.
        """
        folder = self._fetched(version, home, holds)
        if folder is None:
            raise NightloomError(
                f"{version.model} version {version.version} holds no {holds}. "
                f"Go back a version: {typed('nightloom', 'rollback', version.name)}"
            )
        return folder

    def fetch_serving(self, version: Version, cache: Path) -> Path:
        """The serving artefact of a version on this machine's disk; fetched once.

        A version that was registered without one gets it here, of its bundle; that imports torch.

        Args:
            version: which.
            cache: folder of the caches, `<mlruns>/cache`.

        Raises:
            NightloomError: the version's files are gone, or hold no bundle.
            InputError: the bundle is of before graphs kept how often items were seen.
        """
        found = self._fetched(version, cache / SERVING, SERVING_FILE)
        if found is None:
            from nightloom.packaging.serving_artefact import write_serving

            found = _place(version, cache / SERVING)
            write_serving(self.fetch(version, cache / "champions"), found)
        return found

    def _fetched(self, version: Version, home: Path, holds: str) -> Path | None:
        """The folder of a version that holds a file, fetched once; None where there is no such file."""
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        folder = _place(version, home)
        if folder.exists():
            return folder
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=home) as scratch:
            with self._reached():
                place = self.client.get_model_version_download_uri(version.model, version.version)
                try:
                    copied = download_artifacts(artifact_uri=place, dst_path=scratch, tracking_uri=self.tracking.uri)
                except (OSError, MlflowException) as error:
                    raise NightloomError(
                        f"{version.model} version {version.version}: its files can not be read from {place}. "
                        f"Bring them back from a backup, or go back a version: {typed('nightloom', 'rollback', version.name)}"
                    ) from error
            found = next(Path(copied).rglob(holds), None)
            if found is None:
                return None
            try:
                found.parent.rename(folder)
            except OSError:
                if not folder.exists():  # else another process fetched it first
                    raise
        return folder

    def register(
        self,
        name: str,
        bundle: Path,
        run_id: str,
        tags: Mapping[str, str],
        card: str,
        example: list[list[str]],
        *,
        events: Path | None = None,
        exclude_seen: bool = True,
    ) -> Version:
        """Log the bundle, and its serving artefact, as a pyfunc under a run and register it as `challenger`, once.

        A run that has a version already keeps that one, and so does what was trained (`TRAINED_TAG`): a night that was killed after this
        and started again registers nothing twice. The version appears only when all its files and tags are there, so a kill leaves none
        by halves.

        Args:
            name: the config's name.
            bundle: folder that fine_tune made.
            run_id: run of the model's family.
            tags: data, config and git hashes, and `TRAINED_TAG`.
            card: the model card, Markdown.
            example: histories of item ids for the input example.
            events: canonical events.parquet, or the snapshot's folder, in which the model looks up user ids.
            exclude_seen: whether items of the history are left out unless a request says otherwise.
        """
        from nightloom.packaging.serving_artefact import write_serving  # torch, which no other method needs

        with tempfile.TemporaryDirectory(prefix="nightloom-") as scratch:
            serving = Path(scratch) / SERVING
            write_serving(bundle, serving)
            served = recommender(bundle, serving, example, events, exclude_seen=exclude_seen)
            return self.register_served(name, served, run_id, tags, card)

    def register_served(self, name: str, served: Served, run_id: str, tags: Mapping[str, str], card: str) -> Version:
        """The same for any model that can be served; `name` is that of the registered model without `nightloom-`."""
        model = f"nightloom-{name}"
        with self._reached():
            if self._model(name) is None:
                self.client.create_registered_model(model, description="Registered by Nightloom; `champion` serves.")
            made = [one for one in self.client.search_model_versions(f"name = '{model}'") if _same(one, run_id, tags)]
            if not made:
                logged = log_model(self.client, served, run_id, tags, card)
                self.client.create_model_version(
                    model,
                    source=logged.artifact_location,  # a models:/ source is looked up at MLflow's global address
                    run_id=run_id,
                    tags=dict(tags),
                    description=card[:DESCRIPTION_LENGTH],
                    model_id=logged.model_id,
                )
                made = self.client.search_model_versions(f"name = '{model}' and run_id = '{run_id}'")
            self.client.set_registered_model_alias(model, CHALLENGER, made[0].version)
            return _version(made[0], self.client.get_registered_model(model).aliases)

    def promote(self, version: Version, *, best: bool = False) -> None:
        """Make a version the champion; the former one becomes `previous`.

        `previous` and `anchor` are written first, so that a kill in between leaves the champion standing and the call may be repeated.

        Args:
            version: which.
            best: whether it is better than all before, and so becomes the anchor. Where there is no anchor, the former champion is.
        """
        standing = self.champion(version.name)
        if standing is not None and standing.version == version.version:
            return
        with self._reached():
            if standing is not None:
                self.client.set_registered_model_alias(version.model, PREVIOUS, standing.version)
            anchor = version if best or standing is None else standing
            if anchor is not standing or self.find(version.name, ANCHOR) is None:
                self.client.set_registered_model_alias(version.model, ANCHOR, anchor.version)
            self.client.set_registered_model_alias(version.model, CHAMPION, version.version)

    def rollback(self, name: str) -> Version:
        """Make `previous` the champion again; there is no `previous` then, so that a second call does not undo the first.

        Whoever goes back says that the champion is bad, so it is no anchor either.

        Raises:
            InputError: there is no previous version.
        """
        former, back, anchor = (self.find(name, alias) for alias in (PREVIOUS, CHAMPION, ANCHOR))
        if former is None:
            raise InputError(f"nightloom-{name} has no previous version to go back to. See: {typed('nightloom', 'versions', name)}")
        with self._reached():
            if back is not None and anchor is not None and anchor.version == back.version:
                self.client.set_registered_model_alias(former.model, ANCHOR, former.version)
            self.client.set_registered_model_alias(former.model, CHAMPION, former.version)
            self.client.delete_registered_model_alias(former.model, PREVIOUS)
        return former

    def _reached(self) -> AbstractContextManager[None]:
        return self.tracking.reached()

    def _model(self, name: str) -> Any:
        """MLflow's registered model, or None."""
        from mlflow.exceptions import MlflowException

        try:
            return self.client.get_registered_model(f"nightloom-{name}")
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise


def _place(version: Version, home: Path) -> Path:
    """Where a fetched version is kept."""
    return home / f"{version.model}-v{version.version}-{version.run_id[:8]}"


def _same(version: Any, run_id: str, tags: Mapping[str, str]) -> bool:
    """Whether a version of MLflow's holds what a run made, or what was trained as the tags say."""
    return version.run_id == run_id or (TRAINED_TAG in tags and version.tags.get(TRAINED_TAG) == tags[TRAINED_TAG])


def _version(found: Any, aliases: Mapping[str, Any]) -> Version:
    mine = tuple(sorted(alias for alias, number in aliases.items() if str(number) == str(found.version)))
    created = datetime.fromtimestamp(found.creation_timestamp / 1000, UTC)
    return Version(found.name, str(found.version), found.run_id, dict(found.tags), mine, created)
