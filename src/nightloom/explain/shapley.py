"""Shapley values of any game that scores many coalitions at once.

Few players: exact, over all coalitions. Many: estimated from permutations in pairs, one the reverse of the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import factorial

import numpy as np
from numpy.typing import NDArray

Game = Callable[[NDArray[np.bool_]], NDArray[np.floating]]
"""Coalitions, bool [n, players], true for those who take part -> their worth, float [n]."""


@dataclass(frozen=True)
class Shapley:
    """What each player adds.

    Attributes:
        values: float64 [players].
        errors: float64 [players], standard errors; zero when exact.
        none: worth of nobody.
        all: worth of everybody.
        evaluations: coalitions that were scored.
    """

    values: NDArray[np.float64]
    errors: NDArray[np.float64]
    none: float
    all: float
    evaluations: int

    @property
    def gap(self) -> float:
        """sum(values) - (all - none): zero but for rounding, under either method (the efficiency axiom)."""
        return float(self.values.sum() - (self.all - self.none))


def shapley(game: Game, players: int, samples: int, seed: int = 0) -> Shapley:
    """Find or estimate Shapley values within a budget.

    Exact when all 2^players coalitions fit into the budget. Otherwise the mean marginal contribution
    over random orders of arrival (Castro, Gomez and Tejada 2009). Orders are drawn in pairs of one and its
    reverse, which cancels the errors that come from who arrives early (antithetic sampling; Mitchell,
    Cooper, Frank and Holmes 2022, section 3). Each order is efficient by itself, so the sum is always right.

    Args:
        game: called once, with all coalitions.
        players: how many there are.
        samples: most coalitions to score; at least two pairs of orders are drawn, so that errors are known.
        seed: of the orders.
    """
    if 2**players <= samples:
        return _exact(game, players)
    pairs = max(2, (samples - 2) // (2 * (players - 1)))
    random = np.random.default_rng(seed)
    orders = np.stack([random.permutation(players) for _ in range(pairs)])
    arrival = np.argsort(np.stack([orders, orders[:, ::-1]], axis=1), axis=-1)  # [pairs, 2, players]
    coalitions = arrival[..., None, :] < np.arange(players + 1)[:, None]  # [pairs, 2, players + 1, players]
    unique, where = np.unique(coalitions.reshape(-1, players), axis=0, return_inverse=True)
    worth = np.asarray(game(unique), dtype=np.float64)[where.reshape(-1)].reshape(pairs, 2, players + 1)
    added = np.take_along_axis(np.diff(worth), arrival, axis=-1).mean(1)  # by player, [pairs, players]
    errors = added.std(0, ddof=1) / np.sqrt(pairs)
    return Shapley(added.mean(0), errors, float(worth[0, 0, 0]), float(worth[0, 0, -1]), evaluations=len(unique))


def _exact(game: Game, players: int) -> Shapley:
    """The definition: marginal contributions to every coalition of the others, weighted by s! (n - s - 1)! / n!."""
    numbers = np.arange(2**players)
    coalitions = (numbers[:, None] >> np.arange(players)) & 1 == 1
    worth = np.asarray(game(coalitions), dtype=np.float64)
    sizes = coalitions.sum(1)
    weights = np.array([factorial(s) * factorial(players - s - 1) / factorial(players) for s in range(players)])
    values = np.zeros(players)
    for player in range(players):
        without = numbers[~coalitions[:, player]]
        values[player] = weights[sizes[without]] @ (worth[without | 1 << player] - worth[without])
    return Shapley(values, np.zeros(players), float(worth[0]), float(worth[-1]), evaluations=len(numbers))
