"""Why an item is recommended, for people: which events of the history named in a sentence, and what would be without them.

What is said was tried. An event is named only if its value is above `SURE` standard errors, and the item falls without it. That the item
would not be in the list without some events is said only if these were left out and it was not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightloom.core.reason_votes import ReasonKind
from nightloom.serving.reasons.attribution import Contributions, Estimator, history_contributions
from nightloom.serving.reasons.coalitions import Coalitions
from nightloom.serving.reasons.reason_words import Language, sentence

SURE = 2.0
"""Standard errors."""
NAMED = 3
"""Most events that a sentence names."""
TRIED = 5
"""Most events that are left out together, the strongest first, to find without which the item would not be there."""
TOPS = (5, 10, 20, 50, 100, 200)
"""Lists whose first places a counterfactual speaks of: the shortest one that holds the item."""


@dataclass(frozen=True)
class Reasons:
    """Of one recommended item.

    Attributes:
        values: float64 [events]; of older events that are not told apart, an equal share of theirs.
        errors: float64 [events], standard errors.
        named: events, the strongest first, that may be named.
        rank: of the item.
        top: the shortest of `TOPS` that holds it; 0 beyond the longest.
        without: events without which it is beyond `top`; empty where none were found.
        one_decides: whether there is a single event without which it is beyond `top`, named or not.
        apart: how many of the latest events were told apart; the others are older.
    """

    values: NDArray[np.float64]
    errors: NDArray[np.float64]
    named: Sequence[int]
    rank: int
    top: int
    without: Sequence[int]
    one_decides: bool
    apart: int

    def saying_nothing_of(self, events: Set[int]) -> Reasons:
        """The reasons without some events, whose items are not to be shown."""
        values = self.values.copy()
        values[list(events)] = 0
        without = () if events & set(self.without) else self.without
        return replace(self, values=values, named=[event for event in self.named if event not in events], without=without)


def reasons(
    game: Coalitions, items: NDArray[np.integer], estimator: Estimator, hidden: NDArray[np.integer], before: int = 0
) -> list[Reasons]:
    """Reasons of some recommended items, together in about 4 coalitions an event.

    Args:
        game: the history.
        items: dense items.
        estimator: the night's.
        hidden: items that are not recommended, since they are in the history.
        before: items that came on earlier pages and are not allowed now.
    """
    older, found = history_contributions(game, items, hidden)
    values, errors = found.values(estimator), found.errors(estimator)
    first = int(older > 0)
    ranks = found.ranks + before
    tops = [next((top for top in TOPS if top >= rank), 0) for rank in ranks[0].tolist()]
    named = [_named(values[:, at], errors[:, at], found, at, older) for at in range(len(items))]
    without = _without(game, items, hidden, before, ranks, tops, named, older)
    answers = []
    for at in range(len(items)):
        alone = ranks[1 + first :, at] > tops[at]
        answers.append(
            Reasons(
                _by_event(values[:, at], older, 1 / max(older, 1)),
                _by_event(errors[:, at], older, 1 / max(older, 1)),
                named[at],
                int(ranks[0, at]),
                tops[at],
                without[at],
                bool(alone.any()) and tops[at] > 0,
                len(values) - first,
            )
        )
    return answers


def _by_event(values: NDArray[np.float64], older: int, share: float) -> NDArray[np.float64]:
    """Values of players as those of events."""
    return np.concatenate([np.repeat(values[0] * share, older), values[1:]]) if older else values


def _named(values: NDArray[np.float64], errors: NDArray[np.float64], found: Contributions, at: int, older: int) -> list[int]:
    """Events that may be named, the strongest first; older events that are one player together are not told apart, so not named."""
    first = int(older > 0)
    may = np.flatnonzero((values > SURE * errors) & (found.left_out[:, at] > 0))
    may = may[may >= first]
    order: list[int] = (may[np.argsort(-values[may], kind="stable")] - first + older).tolist()
    return order


def _without(
    game: Coalitions,
    items: NDArray[np.integer],
    hidden: NDArray[np.integer],
    before: int,
    ranks: NDArray[np.int64],
    tops: Sequence[int],
    named: Sequence[Sequence[int]],
    older: int,
) -> list[list[int]]:
    """The fewest named events without which each item is beyond its top: one, or the strongest together."""
    found: list[list[int]] = [[] for _ in items]
    first = int(older > 0)
    tried: list[tuple[int, list[int]]] = []
    for at, events in enumerate(named):
        if not tops[at]:
            continue
        alone = [event for event in events if ranks[1 + event - older + first, at] > tops[at]]
        if alone:
            found[at] = alone[:1]
        else:
            tried += [(at, list(events[:many])) for many in range(2, min(TRIED, len(events)) + 1)]
    if not tried:
        return found
    keep = np.ones((len(tried), game.events), dtype=np.bool_)
    for row, (_, events) in enumerate(tried):
        keep[row, events] = False
    _, theirs = game.outcomes(keep, items, hidden)
    for row, (at, events) in enumerate(tried):
        if not found[at] and theirs[row, at] + before > tops[at]:
            found[at] = events
    return found


def told(
    one: Reasons,
    ids: Sequence[str],
    titles: Sequence[str],
    verbs: Sequence[str | None],
    language: Language,
    *,
    both_signs: bool,
) -> dict[str, Any]:
    """What an answer says of an item.

    Args:
        one: its reasons.
        ids: item id of each event.
        titles: title of each event's item.
        verbs: what was done with it (`nightloom.serving.reasons.reason_words.VERBS`).
        language: of the sentence.
        both_signs: whether events that speak against the item are told too, and standard errors; visitors get neither.
    """
    spoken = list({ids[event]: event for event in reversed(one.named)}.values())[::-1][:NAMED]  # an item that came twice once
    without = one.without if set(one.without) <= set(one.named) else ()
    text = sentence(
        [titles[event] for event in spoken],
        [verbs[event] for event in spoken],
        list(dict.fromkeys(titles[event] for event in without)),
        one.top,
        language,
        history=len(ids) > 0,
        one_decides=one.one_decides,
    )
    total = float(np.abs(one.values).sum() if both_signs else one.values.clip(0).sum())
    lines = []
    for event in np.argsort(-one.values, kind="stable").tolist():
        value = float(one.values[event])
        if value == 0 or (value < 0 and not both_signs) or event < len(ids) - one.apart:
            continue
        line: dict[str, Any] = {"item_id": ids[event], "title": titles[event], "position": len(ids) - event}
        line |= {"share": value / total if total else 0.0, "named": event in spoken}
        lines.append(line | ({"value": value, "error": float(one.errors[event])} if both_signs else {}))
    gone: Mapping[str, Any] | None = {"items": list(dict.fromkeys(ids[event] for event in without)), "top": one.top} if without else None
    kind: ReasonKind = "newcomer" if not len(ids) else "without" if gone else "events" if spoken else "whole"
    return {"text": text, "kind": kind, "events": lines, "without": gone, "rank": one.rank}
