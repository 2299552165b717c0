"""The rule of two people: a version that passed the gate waits until a person promotes it (`promotion.mode: review`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from nightloom.core.errors import InputError
from nightloom.core.shell import typed
from nightloom.promotion.ledger import INTENT_TAG, Intent
from nightloom.promotion.registered import CHAMPION, Version
from nightloom.promotion.registry import OvertakenError, Registry

REVIEW_TAG = "nightloom.review"
"""Tag of a version that waits: what it was judged against. It is no `Intent`, which any process may carry out."""
STARTED_BY = "nightloom.started_by"
"""Tag of a version: who started its night by hand, where that is known."""
APPROVED_BY = "nightloom.approved_by"
"""Tag of a version: who had it promoted."""
DECLINED_BY = "nightloom.declined_by"
"""Tag of a version that waits no more: who wanted the champion to stay."""


@dataclass(frozen=True)
class Answer:
    """What a second person said to the newest version.

    Attributes:
        by: who; empty where a command of before recorded nobody.
        promoted: whether it is champion now; else it was declined.
    """

    by: str
    promoted: bool

    @classmethod
    def of(cls, registry: Registry, name: str) -> Answer | None:
        """The answer that the registry holds; None where there is none yet."""
        newest = next(iter(registry.versions(name)), None)
        if newest is None or REVIEW_TAG not in newest.tags:
            return None
        if newest.version == registry.aliases(name)[CHAMPION]:
            return cls(newest.tags.get(APPROVED_BY, ""), promoted=True)
        return cls(newest.tags[DECLINED_BY], promoted=False) if DECLINED_BY in newest.tags else None


def review_tag(intent: Intent) -> dict[str, str]:
    """What a version is to be promoted over, as its tag."""
    return {REVIEW_TAG: intent.tag()[INTENT_TAG]}


def waiting(versions: Sequence[Version], champion: str | None) -> Version | None:
    """The newest version that waits, where it is newer than the champion; None where none is.

    Args:
        versions: all of a recommender, the newest first.
        champion: number of the one that serves.
    """
    newest = versions[0] if versions else None
    if newest is None or REVIEW_TAG not in newest.tags or DECLINED_BY in newest.tags or newest.version == champion:
        return None
    return newest


def starter(version: Version) -> str:
    """Who started the night of a version by hand; empty where nobody is known."""
    return version.tags.get(STARTED_BY, "")


def decline(registry: Registry, version: Version, by: str) -> None:
    """Have a version wait no more: the champion stays."""
    registry.mark(version, DECLINED_BY, by)


def approve(registry: Registry, name: str, by: str, number: str | None = None) -> Version:
    """Promote the version that waits.

    Args:
        registry: where it is.
        name: the config's name.
        by: who says so; it is recorded with the version.
        number: of the version that the person saw; None for whichever waits.

    Raises:
        InputError: none waits, or another one, nobody says so, or who started its night, or another version is champion than the one
            that it was judged against.
        HeldError: a person went back a version and has not released the hold.
    """
    champion = registry.aliases(name)[CHAMPION]
    version = waiting(registry.versions(name), champion)
    if version is None or number not in (None, version.version):
        raise InputError(f"nothing of nightloom-{name} waits for approval. See: {typed('nightloom', 'versions', name)}")
    if not by.strip():
        raise InputError("say who approves it: a name is recorded with the version.")
    if starter(version).casefold() == by.strip().casefold():
        raise InputError(
            f"nightloom-{name}: {starter(version)} started the night of version {version.version}, so another person has to approve it."
        )
    intent = Intent(**json.loads(version.tags[REVIEW_TAG]))
    try:
        if intent.over != champion:
            raise OvertakenError
        registry.mark(version, APPROVED_BY, by.strip())  # first: a kill between the two leaves a name too many, and no promotion without
        registry.promote(version, best=intent.best)
    except OvertakenError:
        judged = f"version {intent.over}" if intent.over else "no champion"
        raise InputError(
            f"nightloom-{name}: version {version.version} was judged against {judged}, and version {registry.aliases(name)[CHAMPION]} is "
            "champion now. The next night judges another one."
        ) from None
    return version
