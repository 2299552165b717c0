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
from nightloom.serving.reasons.attribution import PLAYERS, Estimator, contributions
from nightloom.serving.reasons.coalitions import Coalitions, history_players
from nightloom.serving.reasons.decisive import TOGETHER, Decisive, decisive, try_without
from nightloom.serving.reasons.reason_words import Language, sentence

SURE = 2.0
"""Standard errors."""
NAMED = 3
"""Most events that a sentence names."""
TOPS = (5, 10, 20, 50, 100, 200)
"""Lists whose first places a counterfactual speaks of: the shortest one that holds the item."""


@dataclass(frozen=True)
class Reasons:
    """Of one recommended item.

    Attributes:
        values: float64 [events]; of older events that are not told apart, an equal share of theirs.
        errors: float64 [events], standard errors.
        named: events that may be named, those that decide first (`nightloom.serving.reasons.decisive`).
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
    """Reasons of some recommended items: values together in about 4 coalitions an event, then a few of the strongest of each item.

    Args:
        game: the history.
        items: dense items.
        estimator: the night's.
        hidden: items that are not recommended, since they are in the history.
        before: items that came on earlier pages and are not allowed now.
    """
    older, owner = history_players(game.events, PLAYERS)
    found = contributions(game, owner, items, hidden)
    values, errors = found.values(estimator), found.errors(estimator)
    first = int(older > 0)
    decided = decisive(game, owner, items, hidden, found, values, first=first)
    ranks = found.ranks + before
    tops = [next((top for top in TOPS if top >= rank), 0) for rank in ranks[0].tolist()]
    sure = (values > SURE * errors) & (found.left_out > 0)
    named = [[player for player in one.order if sure[player, at]] for at, one in enumerate(decided)]
    without = _without(game, owner, items, hidden, before, decided, tops, named)
    answers = []
    for at in range(len(items)):
        alone = ranks[1 + first :, at] > tops[at]
        answers.append(
            Reasons(
                _by_event(values[:, at], older, 1 / max(older, 1)),
                _by_event(errors[:, at], older, 1 / max(older, 1)),
                [player - first + older for player in named[at]],
                int(ranks[0, at]),
                tops[at],
                [player - first + older for player in without[at]],
                bool(alone.any()) and tops[at] > 0,
                len(values) - first,
            )
        )
    return answers


def _by_event(values: NDArray[np.float64], older: int, share: float) -> NDArray[np.float64]:
    """Values of players as those of events."""
    return np.concatenate([np.repeat(values[0] * share, older), values[1:]]) if older else values


def _without(
    game: Coalitions,
    owner: NDArray[np.int64],
    items: NDArray[np.integer],
    hidden: NDArray[np.integer],
    before: int,
    decided: Sequence[Decisive],
    tops: Sequence[int],
    named: Sequence[Sequence[int]],
) -> list[list[int]]:
    """The fewest players that may be named without which each item is beyond its top: one, or the first of them together."""
    wanted = [[] if not top else _sets(players) for players, top in zip(named, tops, strict=True)]
    asked = [(at, players) for at, sets in enumerate(wanted) for players in map(frozenset, sets) if players not in decided[at].ranks]
    try_without(game, owner, items, hidden, decided, asked)
    return [
        next((players for players in sets if one.ranks[frozenset(players)] + before > top), [])
        for sets, one, top in zip(wanted, decided, tops, strict=True)
    ]


def _sets(players: Sequence[int]) -> list[list[int]]:
    """Each player alone, then the first of them together."""
    return [[player] for player in players] + [list(players[:many]) for many in range(2, min(TOGETHER, len(players)) + 1)]


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
