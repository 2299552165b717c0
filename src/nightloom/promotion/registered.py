"""Reading the model registry: which versions there are, who holds which alias, what the ledger says, and their files.

`champion` serves, `previous` is the one before, `challenger` the last registered, `anchor` the best so far. What changes any of it is in
`nightloom.promotion.registry`; no other file touches MLflow's registry.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from nightloom.core.digests import warn
from nightloom.core.errors import NightloomError
from nightloom.core.shell import typed
from nightloom.packaging.serving_format import FILE as SERVING_FILE
from nightloom.packaging.serving_format import FOLDER as SERVING
from nightloom.packaging.serving_format import OtherFormatError
from nightloom.promotion import text_encoders
from nightloom.promotion.ledger import Hold, Intent, Ledger
from nightloom.promotion.version_files import UnreadableError, fetched, place_of
from nightloom.runs.tracking import Tracking

CHAMPION, CHALLENGER, PREVIOUS, ANCHOR = "champion", "challenger", "previous", "anchor"
TRAINED_TAG = "nightloom.trained"
"""Tag of a version: key of the stage that trained it and the protocol, by which a night that was killed and started again finds it."""
SAW_FORGOTTEN = "nightloom.saw_forgotten"
"""Tag of a version that learned from somebody who was forgotten since, and the day: it serves until another one passes the gate."""
CLICKS = "-clicks"
"""Ends the name of a click head, which is registered beside the recommender of the same config."""


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
    def number(self) -> int:
        """Its number; later ones are higher."""
        return int(self.version)

    @property
    def name(self) -> str:
        """The config's name."""
        return self.model.removeprefix("nightloom-")


class Registered:
    """Registered recommenders, to look at.

    Args:
        root: the mlruns folder.

    Raises:
        NightloomError: from every method, when MLflow's server or database can not be reached.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.tracking = root, Tracking(root)
        self.client = self.tracking.client

    def versions(self, name: str) -> list[Version]:
        """All versions, the newest first; none when nothing was registered under the name."""
        with self._reached():
            model = self._model(name)
            if model is None:
                return []
            return self._versions(model)

    def find(self, name: str, alias: str) -> Version | None:
        """The version that holds an alias; None where there is none, or it was deleted."""
        with self._reached():
            model = self._model(name)
            number = None if model is None else _aliases(model).get(alias)
            return next((one for one in self._versions(model) if one.version == number), None) if number else None

    def champion(self, name: str) -> Version | None:
        """The version that serves."""
        return self.find(name, CHAMPION)

    def aliases(self, name: str) -> dict[str, str | None]:
        """Version by alias, None where an alias is not set."""
        with self._reached():
            model = self._model(name)
        held = _aliases(model) if model else {}
        return {alias: held.get(alias) for alias in (CHAMPION, CHALLENGER, PREVIOUS, ANCHOR)}

    def ledger(self, name: str) -> Ledger:
        """What was meant to happen to the aliases, and what did; empty where nothing is registered."""
        with self._reached():
            model = self._model(name)
        return Ledger(model.tags if model else {})

    def hold(self, name: str) -> Hold | None:
        """The hold that a rollback set and nobody has released, or None."""
        return self.ledger(name).hold

    def went_back(self, name: str, trained: str) -> str | None:
        """Number of a version of the same training from which a person went back, and that does not serve; None where there is none."""
        back, champion = self.ledger(name).taken_back, self.champion(name)
        same = [one for one in self.versions(name) if one.version in back and one.tags.get(TRAINED_TAG) == trained]
        return next((one.version for one in same if champion is None or one.version != champion.version), None)

    def lost_champion(self, name: str) -> str | None:
        """Number of the version that is champion by the ledger, where no version is; None also where the ledger knows of none."""
        last = self.ledger(name).last_move
        return (last.aliases or {}).get(CHAMPION) if last and self.champion(name) is None else None

    def candidates(self, name: str, trained: str | None) -> list[Version]:
        """Versions that a challenger may be compared with as the champion, the right one first.

        Those after it stand in where it can not be read: `previous`, then what was champion before, the newest first. A version that a
        person went back from is none of them, nor is one that never became champion, or that learned from somebody who was forgotten.

        Args:
            name: the config's name.
            trained: the challenger's `TRAINED_TAG`, which is not compared with itself; None where it is not known.
        """
        versions, ledger = [one for one in self.versions(name) if SAW_FORGOTTEN not in one.tags], self.ledger(name)
        held = {alias: one for one in versions for alias in one.aliases}
        champion = held.get(CHAMPION)
        out = ledger.overtaken | ledger.taken_back
        before = [
            one
            for one in versions
            if one.version not in out and (Intent.of(one.tags) is None or one.version in ledger.settled) and _older(one, champion)
        ]
        first = [one for one in (champion, held.get(PREVIOUS)) if one]
        found = {one.version: one for one in [*first, *before] if trained is None or one.tags.get(TRAINED_TAG) != trained}
        return list(found.values())

    def experiments(self, name: str) -> list[Any]:
        """MLflow's experiments of a recommender and its click head."""
        with self._reached():
            found = (self.client.get_experiment_by_name(f"nightloom-{name}{end}") for end in ("", CLICKS))
            return [one for one in found if one is not None]

    def orphans(self, name: str, before: float) -> list[tuple[str, str]]:
        """Models of a recommender's experiment that no registered version points at, whatever that is called.

        Args:
            name: the config's name.
            before: seconds since 1970; younger ones are left out, since a night may be about to register them.

        Returns:
            (MLflow's id, address of the files) of each.
        """
        with self._reached():
            experiment = self.client.get_experiment_by_name(f"nightloom-{name}")
            if experiment is None:
                return []
            logged, token = list[Any](), None
            while token != "":
                page = self.client.search_logged_models([experiment.experiment_id], page_token=token)
                logged, token = [*logged, *page], page.token or ""
            old = [one for one in logged if one.creation_timestamp / 1000 < before]
            sources = {run: self._sources(run) for run in {one.source_run_id for one in old}}
        known = {place for one in logged for place in _places(one)}
        # A source that is not known may be in any of the run's models: a person registers what he likes, under any name.
        return [(one.model_id, one.artifact_location) for one in old if sources[one.source_run_id] <= known.difference(_places(one))]

    def _sources(self, run: str) -> set[str]:
        """Addresses of what was registered from a run, under any name."""
        return {one.source for one in self.client.search_model_versions(f"run_id = '{run}'")}

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
            UnreadableError: the version's files are gone, or hold no bundle.
            NightloomError: MLflow, or the store of its files, does not answer.
        """
        folder = fetched(self.tracking, version, home, holds)
        if folder is None:
            raise UnreadableError(
                f"{version.model} version {version.version} holds no {holds}. "
                f"Go back a version: {typed('nightloom', 'rollback', version.name)}"
            )
        return folder

    def fetch_serving(self, version: Version, cache: Path) -> Path:
        """The serving artefact of a version on this machine's disk; fetched once.

        A version that was registered without one, or by a Nightloom whose artefacts have another format, gets it here, of its bundle;
        that imports torch.

        Args:
            version: which.
            cache: folder of the caches, `<mlruns>/cache`.

        Raises:
            UnreadableError: the version's files are gone, or hold no bundle.
            NightloomError: MLflow, or the store of its files, does not answer.
            InputError: the bundle is of before graphs kept how often items were seen.
        """
        place = place_of(version, cache / SERVING)
        try:
            if (found := fetched(self.tracking, version, cache / SERVING, SERVING_FILE)) is not None:
                return found
        except OtherFormatError as error:
            warn(f"{error} It is made anew of the bundle now.")
            shutil.rmtree(place, ignore_errors=True)
        from nightloom.packaging.serving_artefact import write_serving

        write_serving(self.fetch(version, cache / "champions"), place)
        return place

    def fetch_text_encoder(self, version: Version, artefact: Path, cache: Path) -> Path | None:
        """The folder of the text encoder of a version's serving artefact; None where there is none, or it can not be had.

        Args:
            version: which.
            artefact: what `fetch_serving` gave.
            cache: see there.
        """
        return text_encoders.fetch(self.tracking, version.name, artefact, cache)

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

    def _versions(self, model: Any) -> list[Version]:
        """All versions of MLflow's registered model, the newest first."""
        found = self.client.search_model_versions(f"name = '{model.name}'", max_results=10_000)
        aliases = _aliases(model)
        return sorted((_version(one, aliases) for one in found), key=lambda one: one.number, reverse=True)


def _aliases(model: Any) -> dict[str, str]:
    """Alias -> version of MLflow's registered model, without stale ones."""
    return Ledger(model.tags).meant({alias: str(number) for alias, number in model.aliases.items()})


def _version(found: Any, aliases: Mapping[str, str]) -> Version:
    mine = tuple(sorted(alias for alias, number in aliases.items() if number == str(found.version)))
    created = datetime.fromtimestamp(found.creation_timestamp / 1000, UTC)
    return Version(found.name, str(found.version), found.run_id, dict(found.tags), mine, created)


def _places(logged: Any) -> tuple[str, str]:
    """Sources by which a registered version points at a logged model."""
    return logged.artifact_location, f"models:/{logged.model_id}"


def _older(version: Version, champion: Version | None) -> bool:
    return champion is None or version.number < champion.number
