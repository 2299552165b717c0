"""Shapley values of any game that scores many coalitions at once.

Few players: exact, over all coalitions. Many: estimated from permutations in pairs, one the reverse of the other, until the values are
known well enough.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import factorial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Game = Callable[[NDArray[np.bool_]], NDArray[np.floating[Any]]]
"""Coalitions, bool [n, players], true for those who take part -> their worth, float [n], or [n, games] of several games at once."""
FEWEST_PAIRS = 8
"""Pairs of orders from which a standard error is believed."""


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

    @property
    def relative_error(self) -> float:
        """Mean standard error over the mean absolute value; zero when exact, or when nothing adds anything."""
        size = float(np.abs(self.values).mean()) if len(self.values) else 0.0
        return float(self.errors.mean()) / size if size else 0.0


def shapley(game: Game, players: int, samples: int, seed: int = 0, precision: float = 0.0) -> Shapley:
    """Find or estimate the Shapley values of one game; see `shapley_values`."""
    return shapley_values(lambda coalitions: np.asarray(game(coalitions))[:, None], players, samples, seed, precision)[0]


def shapley_values(game: Game, players: int, samples: int, seed: int = 0, precision: float = 0.0) -> list[Shapley]:
    """Find or estimate Shapley values within a budget, of several games that score the same coalitions.

    Exact when all 2^players coalitions fit into the budget. Otherwise the mean marginal contribution
    over random orders of arrival (Castro, Gomez and Tejada 2009). Orders are drawn in pairs of one and its
    reverse, which cancels the errors that come from who arrives early (antithetic sampling; Mitchell,
    Cooper, Frank and Holmes 2022, section 3). Each order is efficient by itself, so the sum is always right.

    Args:
        game: is given many coalitions at a time; its worth is [n, games].
        players: how many there are.
        samples: most coalitions to score; at least two pairs of orders are drawn, so that errors are known.
        seed: of the orders.
        precision: sampling ends where the mean standard error of each game is at most this share of its mean absolute value, and
            `FEWEST_PAIRS` were drawn. 0: the whole budget is spent.
    """
    if 2**players <= samples:
        return _exact(game, players)
    budget = max(2, (samples - 2) // (2 * (players - 1)))
    step = budget if precision <= 0 else FEWEST_PAIRS
    random = np.random.default_rng(seed)
    added: list[NDArray[np.float64]] = []
    drawn = evaluations = 0
    while True:
        pairs = min(step, budget - drawn)
        parts, ends, scored = _drawn(game, players, pairs, random)
        added.append(parts)
        drawn, evaluations = drawn + pairs, evaluations + scored
        every = np.concatenate(added)
        errors = every.std(0, ddof=1) / np.sqrt(drawn)
        found = [
            Shapley(every[:, :, at].mean(0), errors[:, at], float(ends[0, at]), float(ends[1, at]), evaluations)
            for at in range(every.shape[2])
        ]
        if drawn >= budget or (precision > 0 and all(one.relative_error <= precision for one in found)):
            return found


def _drawn(game: Game, players: int, pairs: int, random: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """What each player adds in some pairs of orders, [pairs, players, games], the worth of nobody and of all, and the coalitions scored."""
    orders = np.stack([random.permutation(players) for _ in range(pairs)])
    arrival = np.argsort(np.stack([orders, orders[:, ::-1]], axis=1), axis=-1)  # [pairs, 2, players]
    coalitions = arrival[..., None, :] < np.arange(players + 1)[:, None]  # [pairs, 2, players + 1, players]
    unique, where = np.unique(coalitions.reshape(-1, players), axis=0, return_inverse=True)
    worth = np.asarray(game(unique), dtype=np.float64)[where.reshape(-1)].reshape(pairs, 2, players + 1, -1)
    added = np.take_along_axis(np.diff(worth, axis=2), arrival[..., None], axis=2).mean(1)
    return added, worth[0, 0, [0, -1]], len(unique)


def _exact(game: Game, players: int) -> list[Shapley]:
    """The definition: marginal contributions to every coalition of the others, weighted by s! (n - s - 1)! / n!."""
    numbers = np.arange(2**players)
    coalitions = (numbers[:, None] >> np.arange(players)) & 1 == 1
    worth = np.asarray(game(coalitions), dtype=np.float64)
    sizes = coalitions.sum(1)
    weights = np.array([factorial(s) * factorial(players - s - 1) / factorial(players) for s in range(players)])
    values = np.zeros((players, worth.shape[1]))
    for player in range(players):
        without = numbers[~coalitions[:, player]]
        values[player] = weights[sizes[without]] @ (worth[without | 1 << player] - worth[without])
    return [
        Shapley(values[:, at], np.zeros(players), float(worth[0, at]), float(worth[-1, at]), evaluations=len(numbers))
        for at in range(worth.shape[1])
    ]
