"""Which events of a history decide a recommendation together, and in which order they are named.

A value says what an event adds on the whole. Whether the item keeps its place without some events depends on what is left, too: two
films of one series stand in for each other, and each alone seems to count little. So coalitions are tried. Of the
events of the highest values the first is that without which the item falls furthest in the list, as leave-one-out has shown; each
further one is that without which it falls furthest once those before it are gone. Where several make it fall alike, the one of the
higher value comes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nightloom.serving.reasons.attribution import Contributions
from nightloom.serving.reasons.coalitions import Coalitions

TOGETHER = 5
"""Most events that are looked for by trying."""
TRIED = 6
"""Events, those of the highest values, that are tried as the next one. More find less of what also speaks for the item alone."""
FAR = 10
"""An item that has fallen beyond this place is gone: what else speaks for it follows by value."""


@dataclass
class Decisive:
    """What was found of one item.

    Attributes:
        order: players whose values are above zero: those that decide first, then the others by value.
        ranks: the item's rank without each set of players that was tried.
    """

    order: list[int]
    ranks: dict[frozenset[int], int] = field(default_factory=dict)


def decisive(
    game: Coalitions,
    owner: NDArray[np.int64],
    items: NDArray[np.integer],
    hidden: NDArray[np.integer],
    found: Contributions,
    values: NDArray[np.float64],
    *,
    first: int = 0,
) -> list[Decisive]:
    """Look for the events that decide each of some items, all items together.

    Args:
        game: the history.
        owner: int64 [events], the player of each event.
        items: dense items.
        hidden: items that ranks leave out, besides those that may not be recommended.
        found: what players add.
        values: float64 [players, items].
        first: players before this one are several events each, so they are not looked at.
    """
    answers, rests = list[Decisive](), list[list[int]]()
    for at in range(len(items)):
        by_value = np.argsort(-values[:, at], kind="stable")
        rest = by_value[(values[by_value, at] > 0) & (by_value >= first)].tolist()
        ranks = {frozenset([player]): int(found.ranks[1 + player, at]) for player in rest}
        answers.append(Decisive([], ranks))
        rests.append(rest)
        if rest:
            _take(answers[at], rest, rest[:TRIED])
    for _ in range(1, TOGETHER):
        open_ = [at for at, (one, rest) in enumerate(zip(answers, rests, strict=True)) if rest and not _gone(one)]
        asked = [(at, frozenset([*answers[at].order, player])) for at in open_ for player in rests[at][:TRIED]]
        try_without(game, owner, items, hidden, answers, asked)
        for at in open_:
            _take(answers[at], rests[at], rests[at][:TRIED])
    for one, rest in zip(answers, rests, strict=True):
        one.order += rest
    return answers


def _gone(one: Decisive) -> bool:
    return one.ranks[frozenset(one.order)] > FAR


def _take(one: Decisive, rest: list[int], tried: list[int]) -> None:
    """Move the player without which the item falls furthest from the rest to the order."""
    taken = max(tried, key=lambda player: one.ranks[frozenset([*one.order, player])])  # of equal ones the first: it has the higher value
    one.order.append(taken)
    rest.remove(taken)


def try_without(
    game: Coalitions,
    owner: NDArray[np.int64],
    items: NDArray[np.integer],
    hidden: NDArray[np.integer],
    answers: Sequence[Decisive],
    asked: Iterable[tuple[int, frozenset[int]]],
) -> None:
    """Rank items without sets of players, which goes to `Decisive.ranks`; arguments as in `decisive`.

    Args:
        asked: the place of an item, and the players that it is ranked without.
    """
    asked = list(asked)
    places = {players: place for place, players in enumerate(dict.fromkeys(players for _, players in asked))}
    if not places:
        return
    keep = np.ones((len(places), int(owner[-1]) + 1), dtype=np.bool_)
    for players, place in places.items():
        keep[place, list(players)] = False
    _, ranks = game.outcomes(keep[:, owner], items, hidden)
    for at, players in asked:
        answers[at].ranks[players] = int(ranks[places[players], at])
