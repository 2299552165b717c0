"""The rule of two people: a version that passed the gate waits until a person promotes it (`promotion.mode: review`)."""

from __future__ import annotations

import json
from collections.abc import Sequence

from nightloom.core.errors import InputError
from nightloom.core.shell import typed
from nightloom.promotion.ledger import INTENT_TAG, Intent
from nightloom.promotion.registered import CHAMPION, Version
from nightloom.promotion.registry import OvertakenError, Registry

REVIEW_TAG = "nightloom.review"
"""Tag of a version that waits: what it was judged against. It is no `Intent`, which any process may carry out."""


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
    if newest is None or REVIEW_TAG not in newest.tags or newest.version == champion:
        return None
    return newest


def approve(registry: Registry, name: str) -> Version:
    """Promote the version that waits.

    Raises:
        InputError: none waits, or another version is champion than the one that it was judged against.
        HeldError: a person went back a version and has not released the hold.
    """
    champion = registry.aliases(name)[CHAMPION]
    version = waiting(registry.versions(name), champion)
    if version is None:
        raise InputError(f"nothing of nightloom-{name} waits for approval. See: {typed('nightloom', 'versions', name)}")
    intent = Intent(**json.loads(version.tags[REVIEW_TAG]))
    try:
        if intent.over != champion:
            raise OvertakenError
        registry.promote(version, best=intent.best)
    except OvertakenError:
        judged = f"version {intent.over}" if intent.over else "no champion"
        raise InputError(
            f"nightloom-{name}: version {version.version} was judged against {judged}, and version {registry.aliases(name)[CHAMPION]} is "
            "champion now. The next night judges another one."
        ) from None
    return version
