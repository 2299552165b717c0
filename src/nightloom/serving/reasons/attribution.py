"""What each event of a history adds to the worth of recommended items: an estimate of Shapley values in about 4 coalitions an event.

The Shapley value of an event is its mean contribution over coalitions of all sizes (Owen 1972: the integral of the multilinear
extension). It is looked at where that is cheap and where it says most: beside all other events (leave-one-out), beside every other one,
in both halves of the history, and alone. Each night a ridge regression on long runs says how much each of the three counts
(`nightloom.explain.fit`), and how large the error is. What is left of the worth of all events is shared out evenly, so that the values
add up. The values of all items come from the same coalitions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nightloom.serving.reasons.coalitions import Coalitions, history_players

FloatArray = NDArray[np.float64]
PLAYERS = 50
"""Latest events that are players of their own; the older ones are one player together."""
SIMPSON = (1 / 6, 4 / 6, 1 / 6)
"""Weights without a fit: Simpson's rule for the integral over sizes, from leave-one-out by halves to alone."""
UNKNOWN = (0.25, 1.0, 1.0)
"""Error without a fit: cautious."""


@dataclass(frozen=True)
class Estimator:
    """How contributions become values and errors.

    Attributes:
        weights: of leave-one-out, of halves, of an event alone.
        error: the variance of an error is the sum of these shares: of the mean square of the item's values, of the squared difference
            between the two halves, of that between leave-one-out and halves.
        fitted: figures of the fit, for reports; empty without one.
    """

    weights: tuple[float, float, float] = SIMPSON
    error: tuple[float, float, float] = UNKNOWN
    fitted: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Self:
        """From `explainer.json`."""
        return cls(tuple(said["weights"]), tuple(said["error"]), said.get("fitted"))


@dataclass(frozen=True)
class Contributions:
    """What players add to some coalitions, each float64 [players, items]; see the module.

    Attributes:
        left_out: to all the others.
        halves: to every other player, once counted from the first and once from the second, [2, players, items].
        alone: to nobody.
        all: worth of everybody, [items].
        none: worth of nobody, [items].
        ranks: int64 [1 + players, items], ranks of the items with everybody, and without each player.
    """

    left_out: FloatArray
    halves: FloatArray
    alone: FloatArray
    all: FloatArray
    none: FloatArray
    ranks: NDArray[np.int64]

    def values(self, estimator: Estimator) -> FloatArray:
        """Estimated Shapley values, [players, items]."""
        found = self.raw(estimator.weights)
        rest = self.all - self.none - found.sum(0)
        return found + rest / max(len(found), 1)

    def raw(self, weights: tuple[float, float, float]) -> FloatArray:
        """The weighted sum alone, which need not add up."""
        return weights[0] * self.left_out + weights[1] * self.halves.mean(0) + weights[2] * self.alone

    def spreads(self, values: FloatArray) -> FloatArray:
        """What the error's variance is a sum of, [3, players, items]; see `Estimator`."""
        size = np.broadcast_to(np.square(values).mean(0), values.shape) if len(values) else values
        return np.stack([size, np.square(self.halves[0] - self.halves[1]), np.square(self.left_out - self.halves.mean(0))])

    def errors(self, estimator: Estimator) -> FloatArray:
        """Standard errors of `values`, [players, items]."""
        return np.sqrt(np.einsum("s,spi->pi", np.array(estimator.error), self.spreads(self.values(estimator))))


def contributions(game: Coalitions, owner: NDArray[np.int64], items: NDArray[np.integer], hidden: NDArray[np.integer]) -> Contributions:
    """Score the coalitions that an estimate needs: 2 + 4 for each player at most.

    Args:
        game: the history.
        owner: int64 [events], the player of each event (`history_players`).
        items: dense items.
        hidden: items that ranks leave out, besides those that may not be recommended.
    """
    players = int(owner[-1]) + 1 if len(owner) else 0
    one = np.eye(players, dtype=np.bool_)
    ends = np.repeat([[True], [False]], players, axis=1)
    half = np.arange(players) % 2 == 0
    halves = [half, ~half]
    flipped = [half[None] ^ one, ~half[None] ^ one]  # each player joins the half that lacks it, or leaves the one that has it
    worth, ranks = game.outcomes(np.concatenate([ends[:1], ~one])[:, owner], items, hidden)
    rest = game.log_probabilities(np.concatenate([ends[1:], one, *(part[None] for part in halves), *flipped])[:, owner], items)
    none, alone, bases, moved = rest[0], rest[1 : 1 + players], rest[1 + players : 3 + players], rest[3 + players :]
    moved = moved.reshape(2, players, len(items))
    signs = np.where(np.stack(halves), 1.0, -1.0)[:, :, None]
    return Contributions(worth[0] - worth[1:], signs * (bases[:, None] - moved), alone - none, worth[0], none, ranks)


def history_contributions(game: Coalitions, items: NDArray[np.integer], hidden: NDArray[np.integer]) -> tuple[int, Contributions]:
    """The number of older events that are one player, and what players add; arguments as in `contributions`."""
    older, owner = history_players(game.events, PLAYERS)
    return older, contributions(game, owner, items, hidden)
