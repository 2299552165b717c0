"""What tonight's challenger is compared with: the champion as it can be read, or what stands in for it, and what a person must know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nightloom.core.errors import InputError
from nightloom.core.shell import typed
from nightloom.packaging.bundle import Bundle
from nightloom.promotion.ledger import Intent
from nightloom.promotion.registered import ANCHOR, CHAMPION, PREVIOUS, SAW_FORGOTTEN, TRAINED_TAG, Registered, Version
from nightloom.promotion.version_files import UnreadableError

if TYPE_CHECKING:
    from nightloom.config import PromotionConfig
    from nightloom.promotion.registry import Registry


@dataclass(frozen=True)
class Standing:
    """Registered versions beside a challenger.

    Attributes:
        rivals: champion, anchor -> the version that is compared; the anchor only where it is another one.
        places: the same -> folder of its bundle, which was read.
        over: number of the champion that a promotion replaces, readable or not; None where there is none.
        notes: what is lost or can not be read, and the way back, in sentences.
    """

    rivals: Mapping[str, Version] = field(default_factory=dict)
    places: Mapping[str, Path] = field(default_factory=dict)
    over: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def champion(self) -> str | None:
        """Number of the version that is compared as the champion."""
        return self.rivals[CHAMPION].version if CHAMPION in self.rivals else None

    def intent(self, *, best: bool) -> Intent:
        """What a challenger that passes is registered for."""
        return Intent(self.over, self.champion, best)


def stand(registry: Registered, name: str, trained: str | None, home: Path, last: str | None = None) -> Standing:
    """Look up and fetch what a challenger is compared with.

    Args:
        registry: where versions are.
        name: the config's name.
        trained: the challenger's `TRAINED_TAG`; None where it is not trained yet.
        home: folder that keeps fetched versions.
        last: number of the champion that the last night's report names.

    Raises:
        NightloomError: MLflow, or the store of its files, does not answer.
    """
    aliases, notes = registry.aliases(name), list[str]()
    held, lost = registry.find(name, CHAMPION), registry.lost_champion(name) or last
    rivals, places = dict[str, Version](), dict[str, Path]()
    for version in registry.candidates(name, trained):
        place = readable(registry, version, home, notes)
        if place is not None:
            rivals[CHAMPION], places[CHAMPION] = version, place
            break
    if held is None or not _is(held, trained):
        notes += _stands_in(name, held, lost if held is None else None, rivals.get(CHAMPION), aliases[PREVIOUS], registry.tracking.uri)
    anchor = registry.find(name, ANCHOR)
    if (
        anchor
        and rivals
        and SAW_FORGOTTEN not in anchor.tags
        and anchor.version not in (rivals[CHAMPION].version, aliases[CHAMPION])
        and not _is(anchor, trained)
    ):
        place = readable(registry, anchor, home, notes)
        if place is not None:
            rivals[ANCHOR], places[ANCHOR] = anchor, place
    return Standing(rivals, places, aliases[CHAMPION], tuple(notes))


def readable(registry: Registered, version: Version, home: Path, notes: list[str]) -> Path | None:
    """The bundle of a version, fetched and checked; None where it is damaged or gone.

    Args:
        registry: where it is.
        version: which.
        home: folder that keeps fetched versions.
        notes: gets a sentence that names one which can not be read, and the way back.

    Raises:
        NightloomError: MLflow, or the store of its files, does not answer.
    """
    try:
        place = registry.fetch(version, home)
        Bundle.load(place)
    except (UnreadableError, InputError) as error:
        role = "The champion" if CHAMPION in version.aliases else "The anchor" if ANCHOR in version.aliases else "A former champion"
        notes.append(f"{role}, version {version.version}, can not be read: {error}")
        return None
    return place


def _is(version: Version, trained: str | None) -> bool:
    return trained is not None and version.tags.get(TRAINED_TAG) == trained


def _stands_in(name: str, held: Version | None, lost: str | None, stands: Version | None, previous: str | None, uri: str) -> list[str]:
    """What takes the place of a champion that is gone or can not be read."""
    if held is not None and stands is not None and held.version == stands.version:
        return []
    if held is None and lost is None and stands is None:
        return []  # the first night
    if held is not None:
        forgotten = f"Version {held.version} learned from somebody who was forgotten since, and is to be replaced. "
        gone = forgotten if SAW_FORGOTTEN in held.tags else ""
    else:
        gone = f"Version {lost} was champion, and is not in {uri} any more. " if lost else f"No champion is set in {uri}. "
    if stands is None:
        return [f"{gone}No registered version can be compared with, so the challenger was judged as a first one, by the baselines alone."]
    role = "the previous version" if stands.version == previous else "the newest one that can be read"
    back = f" To have it serve again: {typed('nightloom', 'rollback', name)}" if stands.version == previous else ""
    return [f"{gone}The challenger was compared with version {stands.version}, {role}, instead of the champion.{back}"]


def held(registry: Registry, name: str, rules: PromotionConfig, night: str, trained: str | None = None) -> str:
    """Why nothing may be promoted tonight; empty where something may.

    A night whose promotion is enabled counts as one that was held back, and the first after enough of them ends the hold.

    Args:
        registry: where versions are.
        name: the registered name without `nightloom-`.
        rules: the gate's settings.
        night: the night's id.
        trained: the challenger's `TRAINED_TAG`; None where it has none.
    """
    hold = registry.hold(name) if rules.mode != "disabled" else None
    if hold and rules.registers:
        if rules.hold_nights and len({*hold.nights} - {night}) >= rules.hold_nights:
            registry.release(name)
            hold = None
        elif night not in hold.nights:
            registry.hold_back(name, night)
            hold = replace(hold, nights=(*hold.nights, night))
    if hold:
        return hold.said(name, rules.hold_nights)
    back = registry.went_back(name, trained) if trained and rules.mode != "disabled" else None
    return f"This is version {back} again, from which a person went back. Other data, or `--force`, train another one." if back else ""
