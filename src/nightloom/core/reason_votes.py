"""What people say of reasons, helpful or not, by the kind of reason: as the service stores it, and as the night counts it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal, get_args

ReasonKind = Literal["events", "without", "whole", "newcomer", "editors"]
Vote = Literal["helpful", "not_helpful"]
SAID: Mapping[ReasonKind, str] = {
    "events": "because of events that are named",
    "without": "without some events it would not be in the list",
    "whole": "for the history as a whole",
    "newcomer": "no history yet",
    "editors": "chosen by the editors",
}
"""Kinds of reasons, as a report says them."""
VOTES: tuple[Vote, ...] = get_args(Vote)
Votes = dict[str, dict[str, int]]
"""Kind of reason -> vote -> how often."""


def stored(vote: Vote, kind: ReasonKind) -> str:
    """The kind of feedback that a vote is stored as."""
    return f"{vote}:{kind}"


def count_votes(rows: Iterable[tuple[str, str, str | None]]) -> Votes:
    """Count votes.

    Args:
        rows: kind of the feedback, token and item id, in the order of their arrival; of who votes twice on a reason the last counts.
    """
    last: dict[tuple[str, str | None, str], str] = {}
    for said, token, item_id in rows:
        vote, _, kind = said.partition(":")
        if vote in VOTES and kind in SAID:
            last[token, item_id, kind] = vote
    counts = Counter((kind, vote) for (_, _, kind), vote in last.items())
    return {kind: {vote: counts[kind, vote] for vote in VOTES} for kind in SAID if any(counts[kind, vote] for vote in VOTES)}
