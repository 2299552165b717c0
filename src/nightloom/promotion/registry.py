"""Changing the model registry: registering what passed the gate, promoting it, going back. Reading it is in `registered`.

A version is registered only when the gate lets it pass, so a rejected night, or a dry run, leaves the registry as it was; the bundle of
such a night stays in its stage folder for study. A kill at any place leaves a champion, and `previous` is never the same version.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from nightloom.core.blocklist import blocklist_of
from nightloom.core.digests import folder_digest
from nightloom.core.errors import InputError, NightloomError
from nightloom.core.shell import typed
from nightloom.packaging.log_model import log_model
from nightloom.packaging.served import Served, recommender
from nightloom.packaging.serving_format import FOLDER as SERVING
from nightloom.promotion import text_encoders
from nightloom.promotion.ledger import ABANDONED, BEGUN, DONE, HELD, OVERTAKEN, PROMOTE, RELEASED, ROLLBACK, Entry, Intent, Ledger
from nightloom.promotion.registered import (
    ANCHOR,
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    SAW_FORGOTTEN,
    TRAINED_TAG,
    Registered,
    Version,
)
from nightloom.promotion.version_files import FILES_TAG
from nightloom.runs.processes import alive

DESCRIPTION_LENGTH = 5000
"""What MLflow's database keeps of a version's description; the whole card is a file beside the model."""

PAUSE = timedelta(days=1)
"""For so long a process of another machine, which can not be looked at from here, may be paused."""


class OvertakenError(NightloomError):
    """The champion is no longer the one that a challenger was judged against: it has to be judged again."""


class HeldError(NightloomError):
    """Nothing is promoted, since a person went back a version."""


class Registry(Registered):
    """Registered recommenders.

    Args:
        root: the mlruns folder.

    Raises:
        NightloomError: from every method, when MLflow's server or database can not be reached.
    """

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
        intent: Intent | None = None,
        explainer: Path | None = None,
        data_card: str | None = None,
        compress: bool = True,
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
            intent: what `promote` shall do; by it another process can, should this one be killed. None: only what its caller says.
            explainer: `explainer.json` of stage explain, for the serving artefact.
            data_card: the card of the data, Markdown, kept beside the model's.
            compress: whether sequence model and item vectors may be rounded there (`nightloom.compress.sequence`).
        """
        from nightloom.compress.sequence import sequence_export  # torch, which no other method needs
        from nightloom.compress.text import text_export
        from nightloom.packaging.bundle import Bundle
        from nightloom.packaging.serving_artefact import write_serving

        with tempfile.TemporaryDirectory(prefix="nightloom-") as scratch:
            serving = Path(scratch) / SERVING
            reader = Bundle.load(bundle)
            tuned = reader.manifest.encoder.get("text", {}).get("tuned", False)
            home = (Path(scratch) if tuned else self.root / "cache") / text_encoders.HOME
            encoder, files = text_export(reader, home, events) or (None, None)
            if files is not None and not tuned:
                text_encoders.keep(self.tracking, name, files)
            sequence = sequence_export(reader, events, compress=compress).said()
            write_serving(bundle, serving, None if encoder is None else encoder.said(), files if tuned else None, explainer, sequence)
            blocklist = blocklist_of(self.root, name)
            served = recommender(bundle, serving, example, events, exclude_seen=exclude_seen, blocklist=blocklist)
            return self.register_served(name, served, run_id, tags, card, intent=intent, data_card=data_card)

    def register_served(
        self,
        name: str,
        served: Served,
        run_id: str,
        tags: Mapping[str, str],
        card: str,
        *,
        intent: Intent | None = None,
        data_card: str | None = None,
    ) -> Version:
        """The same for any model that can be served; `name` is that of the registered model without `nightloom-`."""
        model = f"nightloom-{name}"
        with self._reached():
            self._make_model(model)
            same = [one for one in self.client.search_model_versions(f"name = '{model}'") if _same(one, run_id, tags)]
            ledger, champion = self.ledger(name), self.aliases(name)[CHAMPION]
            spent = ledger.overtaken | (ledger.settled - {champion} if intent else set())
            made = [one for one in same if str(one.version) not in spent]
            if not made:
                # One that was overtaken, or that others have followed, has its files already. It needs a number after theirs.
                logged = None if same else log_model(self.client, served, run_id, tags, card, data_card)
                made = [
                    self.client.create_model_version(
                        model,
                        # A models:/ source is looked up at MLflow's global address.
                        source=logged.artifact_location if logged else same[0].source,
                        run_id=run_id,
                        tags=dict(tags) | {FILES_TAG: folder_digest(served.folder)} | (intent.tag() if intent else {}),
                        description=card[:DESCRIPTION_LENGTH],
                        model_id=logged.model_id if logged else None,
                    )
                ]
            newest = max(made, key=lambda one: int(one.version))
            if self.aliases(name)[CHALLENGER] != str(newest.version):
                self.client.set_registered_model_alias(model, CHALLENGER, newest.version)
            return next(one for one in self.versions(name) if one.version == str(newest.version))

    def promote(self, version: Version, *, best: bool = False) -> None:
        """Make a version the champion; the former one becomes `previous`.

        A version with an `Intent` follows the champion that it was judged against, or none. Of two with the same one the lower number is
        promoted, also where the process that registered it has been killed meanwhile. The call may be repeated, and does nothing where
        another process has promoted the version since, and maybe others over it.

        Args:
            version: which.
            best: whether it is better than all before, and so becomes the anchor; an `Intent` says it itself. Where there is no anchor,
                the former champion is.

        Raises:
            OvertakenError: another version is champion now.
            HeldError: a person went back a version and has not released the hold.
        """
        with self._reached():
            self.settle(version.name)
            if self.aliases(version.name)[CHAMPION] == version.version:
                return
            ledger = self.ledger(version.name)
            if ledger.hold:
                self._withdraw(version, ledger)
                raise HeldError(ledger.hold.said(version.name))
            intent = Intent.of(version.tags)
            intended = intent is not None
            if intent is None:  # a person's wish
                standing = self.aliases(version.name)[CHAMPION]
                intent = Intent(standing, standing, best)
            else:
                for earlier in reversed(self.versions(version.name)):
                    if earlier.number < version.number:
                        self._promote_pending(earlier)
            if not self._promote_over(version, intent, intended=intended):
                champion = self.aliases(version.name)[CHAMPION]
                raise OvertakenError(
                    f"nightloom-{version.name}: version {version.version} was judged against "
                    f"{f'version {intent.over}' if intent.over else 'no champion'}, and version {champion} is champion now. Judge it again."
                )

    def settle(self, name: str) -> Entry | None:
        """Put stale aliases right, and carry out the move that a kill cut short; gives it back, None where there is none.

        Where somebody has moved the champion since, or has deleted the version that it was to be, the move is abandoned.
        """
        with self._reached():
            self._mend(name)
            move = self.ledger(name).unfinished
            if move is None or move.aliases is None:
                return None
            there, champion = {one.version for one in self.versions(name)}, self.aliases(name)[CHAMPION]
            if champion not in (move.over, move.aliases[CHAMPION], None) or move.aliases[CHAMPION] not in there:
                if self.ledger(name).unfinished != move:
                    return self.settle(name)  # another process was at it
                self._write(name, ABANDONED, of=move.key, version=move.version)
                return None
            self._carry_out(name)
            return move

    def rollback(self, name: str) -> Version:
        """Make `previous` the champion again, and hold all promotions until `release`.

        There is no `previous` then, so that a second call does not undo the first. Whoever goes back says that the champion is bad, so it
        is no anchor either. A rollback that was killed is carried out to its end, and no more.

        Raises:
            InputError: there is no previous version.
        """
        with self._reached():
            settled = self.settle(name)
            if settled is None or settled.act != ROLLBACK:
                ledger = self.ledger(name)
                former, back, anchor = (self.find(name, alias) for alias in (PREVIOUS, CHAMPION, ANCHOR))
                if former is None:
                    raise InputError(
                        f"nightloom-{name} has no previous version to go back to; nothing was changed. "
                        f"See: {typed('nightloom', 'versions', name)}"
                    )
                for one in self.versions(name):
                    self._withdraw(one, ledger)
                taken = back.version if back else None
                best = former.version if anchor is None or anchor.version == taken else anchor.version
                aliases = {CHAMPION: former.version, PREVIOUS: None, ANCHOR: best}
                self._write(name, ROLLBACK, version=taken, over=taken, aliases=aliases)
                self._carry_out(name)
            champion = self.champion(name)
            if champion is None:
                raise NightloomError(
                    f"nightloom-{name} has no champion: someone deleted it meanwhile. {typed('nightloom', 'versions', name)}"
                )
            return champion

    def release(self, name: str) -> None:
        """End the hold that a rollback has set.

        Raises:
            InputError: there is none.
        """
        if self.hold(name) is None:
            raise InputError(f"nightloom-{name} is not held: nothing was changed. See: {typed('nightloom', 'versions', name)}")
        self._write(name, RELEASED)

    def hold_back(self, name: str, night: str) -> None:
        """Note that a night's challenger was held back."""
        self._write(name, HELD, night=night)

    def mark(self, version: Version, tag: str, value: str) -> None:
        """Tag a version that is registered already."""
        with self._reached():
            self.client.set_model_version_tag(version.model, version.version, tag, value)

    def delete_logged(self, model_id: str, location: str) -> None:
        """Delete a logged model: its files first, so that what a kill leaves by halves is found again.

        Args:
            model_id: MLflow's.
            location: address of its files.
        """
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        with self._reached():
            get_artifact_repository(location, tracking_uri=self.tracking.uri).delete_artifacts()
            self.client.delete_logged_model(model_id)

    def _promote_pending(self, version: Version) -> None:
        """Promote a version of whose intent it is not known what became, or note that it was overtaken."""
        intent = Intent.of(version.tags)
        if intent is not None and version.version not in self.ledger(version.name).settled:
            self._promote_over(version, intent, intended=True)

    def _promote_over(self, version: Version, intent: Intent, *, intended: bool) -> bool:
        """Promote a version if the champion is still the one that it is to follow; gives whether it was."""
        self.settle(version.name)
        name, ledger = version.name, self.ledger(version.name)
        if intended and version.version in ledger.settled:  # another process has seen to it, and others may have followed
            return version.version not in ledger.overtaken
        now = self.aliases(name)
        if now[CHAMPION] != intent.over:
            self._write(name, OVERTAKEN, version=version.version)
            return version.version not in self.ledger(name).overtaken
        previous = intent.previous if intent.previous in {one.version for one in self.versions(name)} else now[PREVIOUS]
        retired = {one.version for one in self.versions(name) if SAW_FORGOTTEN in one.tags}
        previous = None if previous in retired else previous  # nobody shall go back to one
        anchor = version.version if intent.best or intent.over is None else now[ANCHOR] or previous
        anchor = version.version if anchor in retired else anchor
        aliases = {CHAMPION: version.version, PREVIOUS: previous if previous != version.version else None, ANCHOR: anchor}
        self._write(name, PROMOTE, version=version.version, over=intent.over, intended=intended, aliases=aliases)
        self._carry_out(name)
        ledger = self.ledger(name)
        if ledger.hold:  # a person has gone back in this moment, and that counts
            raise HeldError(ledger.hold.said(name))
        return version.version not in ledger.overtaken

    def _withdraw(self, version: Version, ledger: Ledger) -> None:
        """Note of a version that waits for its promotion that it will not come."""
        if Intent.of(version.tags) is not None and version.version not in ledger.settled:
            self._write(version.name, OVERTAKEN, version=version.version)

    def _carry_out(self, name: str) -> None:
        """Have the aliases follow the last move; where another one is written meanwhile, that one. So all processes end with the same."""
        followed = None
        while (last := self.ledger(name).last_move) is not None and last.key != followed:
            self._write(name, BEGUN, of=last.key)
            self._set_aliases(name, last.aliases or {})
            followed = last.key
        if last is not None:
            self._write(name, DONE, of=last.key, version=last.version)

    def _mend(self, name: str) -> None:
        """Have stale aliases (`Ledger.meant`) follow the last move again, and end what was begun by processes that are gone."""
        model = self._model(name)
        if model is None or not (begun := (ledger := Ledger(model.tags)).begun):
            return
        held = {alias: str(version) for alias, version in model.aliases.items()}
        if ledger.meant(held) != held:
            self._carry_out(name)
        old = datetime.now(UTC) - PAUSE
        for one in begun:
            if not alive(one.by) or datetime.fromisoformat(one.at) < old:
                self._write(name, DONE, of=one.key)

    def _set_aliases(self, name: str, wanted: Mapping[str, str | None]) -> None:
        """The champion first, so that it is there at any time; `previous` is never the same, not even in between."""
        model, there = f"nightloom-{name}", {one.version for one in self.versions(name)}
        found = self._model(name)
        now = {alias: str(found.aliases[alias]) if alias in found.aliases else None for alias in (CHAMPION, PREVIOUS, ANCHOR)}
        if now[PREVIOUS] is not None and now[PREVIOUS] == wanted[CHAMPION]:
            self.client.delete_registered_model_alias(model, PREVIOUS)
            now[PREVIOUS] = None
        for alias in (CHAMPION, PREVIOUS, ANCHOR):
            version = wanted.get(alias)
            if version == now[alias]:
                continue
            if version is None:
                self.client.delete_registered_model_alias(model, alias)
            elif version in there:  # else deleted since
                self.client.set_registered_model_alias(model, alias, version)

    def _write(self, name: str, act: str, **more: Any) -> Entry:
        """Add an entry to the ledger."""
        with self._reached():
            entry, value = self.ledger(name).next(act, **more)
            self.client.set_registered_model_tag(f"nightloom-{name}", entry.key, value)
        return entry

    def _make_model(self, model: str) -> None:
        """MLflow's registered model, unless it is there; two nights may make it at once."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(model, description="Registered by Nightloom; `champion` serves.")
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def _same(version: Any, run_id: str, tags: Mapping[str, str]) -> bool:
    """Whether a version of MLflow's holds what a run made, or what was trained as the tags say."""
    return version.run_id == run_id or (TRAINED_TAG in tags and version.tags.get(TRAINED_TAG) == tags[TRAINED_TAG])
