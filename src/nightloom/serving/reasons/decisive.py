"""Which events of a history decide a recommendation together, and in which order they are named.

A value says what an event adds on the whole. Whether the item keeps its place without some events depends on what is left, too: two
films of one series stand in for each other, and each alone seems to count little. So coalitions are tried. Of the events of the highest
values the first is that without which the item falls furthest in the list, as leave-one-out has shown; each further one is that without
which it falls furthest once those before it are gone. How far is told by 1 / log2(rank + 1). The value counts a little, too. Where
several count alike, that one comes first which says most for the item together with those before it and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nightloom.serving.reasons.attribution import Contributions
from nightloom.serving.reasons.coalitions import Coalitions

TOGETHER = 5
"""Most events that are looked for by trying."""
TRIED = 6
"""Events, those of the highest values, that are tried as the next one."""
FAR = 10
"""An item that has fallen beyond this place is gone: what else speaks for it follows by value."""
VALUE = 0.1
"""How much the highest value counts beside 1 / log2(rank + 1)."""
ALIKE = 0.005
"""What is as near as this counts alike."""
Players = frozenset[int]


@dataclass
class Decisive:
    """What was found of one item.

    Attributes:
        order: players whose values are above zero: those that decide first, then the others by value.
        ranks: the item's rank without each set of players that was tried.
        alone: its worth for some sets of players and nobody else.
    """

    order: list[int]
    ranks: dict[Players, int]
    alone: dict[Players, float]


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
        alone = {frozenset([player]): float(found.alone[player, at]) for player in rest[:TRIED]}
        answers.append(Decisive([], ranks, alone))
        rests.append(rest)
    for step in range(TOGETHER):
        open_ = [at for at, one in enumerate(answers) if rests[at] and (not step or one.ranks[frozenset(one.order)] <= FAR)]
        if step:
            asked = [(at, frozenset([*answers[at].order, player])) for at in open_ for player in rests[at][:TRIED]]
            try_without(game, owner, items, hidden, answers, asked)
        best = {at: _best(answers[at], rests[at][:TRIED], values[:, at]) for at in open_}
        if step:
            among = [(at, frozenset([*answers[at].order, player])) for at, like in best.items() if len(like) > 1 for player in like]
            _try_alone(game, owner, items, answers, among)
        for at, like in best.items():
            one = answers[at]
            taken = max(like, key=lambda player: one.alone[frozenset([*one.order, player])]) if len(like) > 1 else like[0]
            one.order.append(taken)
            rests[at].remove(taken)
    for one, rest in zip(answers, rests, strict=True):
        one.order += rest
    return answers


def try_without(
    game: Coalitions,
    owner: NDArray[np.int64],
    items: NDArray[np.integer],
    hidden: NDArray[np.integer],
    answers: Sequence[Decisive],
    asked: Iterable[tuple[int, Players]],
) -> None:
    """Rank items without sets of players, which goes to `Decisive.ranks`; other arguments as in `decisive`.

    Args:
        asked: the place of an item, and the players that it is ranked without.
    """
    asked = list(asked)
    if asked:
        places, parts = _coalitions(owner, (players for _, players in asked))
        asked.sort(key=lambda pair: places[pair[1]])
        rows, whose = (np.array(part) for part in zip(*((places[players], at) for at, players in asked), strict=True))
        ranks = game.ranks_of(~parts[:, owner], rows, items[whose], hidden)
        for (at, players), rank in zip(asked, ranks.tolist(), strict=True):
            answers[at].ranks[players] = rank


def _best(one: Decisive, tried: Sequence[int], values: NDArray[np.float64]) -> list[int]:
    """The players that count most as the next one: one, or several alike; by value."""
    largest = float(values.max())
    counts = [VALUE * values[player] / largest - 1 / np.log2(one.ranks[frozenset([*one.order, player])] + 1) for player in tried]
    return [player for player, count in zip(tried, counts, strict=True) if count >= max(counts) - ALIKE]


def _try_alone(
    game: Coalitions,
    owner: NDArray[np.int64],
    items: NDArray[np.integer],
    answers: Sequence[Decisive],
    asked: Sequence[tuple[int, Players]],
) -> None:
    """Find the worth of items for sets of players alone, which goes to `Decisive.alone`."""
    if asked:
        places, parts = _coalitions(owner, (players for _, players in asked))
        worth = game.log_probabilities(parts[:, owner], items)
        for at, players in asked:
            answers[at].alone[players] = float(worth[places[players], at])


def _coalitions(owner: NDArray[np.int64], asked: Iterable[Players]) -> tuple[dict[Players, int], NDArray[np.bool_]]:
    """Each set of players once: its place, and bool [sets, players]."""
    places = {players: place for place, players in enumerate(dict.fromkeys(asked))}
    parts = np.zeros((len(places), int(owner[-1]) + 1), dtype=np.bool_)
    for players, place in places.items():
        parts[place, list(players)] = True
    return places, parts
