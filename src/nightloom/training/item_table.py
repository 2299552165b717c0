"""The id embeddings of a large catalogue: a step updates the rows that its batch needs, the others catch up when they are needed.

Adam moves a row on for as long as its momentum lasts, though its gradient is zero. Without gradients both moments shrink by constant
factors. So k such steps move a row along m / sqrt(v), by a number that depends on the steps alone, and the averaged weights follow by
another one. Both numbers are kept for each step that a row may have been left at. What comes out is dense Adam's but for rounding; a
step then costs, and sends to the other workers, the rows of a batch in place of those of the catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nightloom.training.optimizer import BETAS

FROM_ROWS = 100_000
"""Rows of a table from which on it is updated like this: a smaller one goes through memory in a few milliseconds a step."""
EPSILON = 1e-8
MEMORY = 1024
"""Steps after which momentum has moved a row as far as float32 can tell."""
BLOCK_ROWS = 1 << 14
"""Rows that catch up at once."""


@dataclass(frozen=True)
class Rows:
    """Rows of the table that a step needs.

    Attributes:
        rows: int64 [n], ascending; row 0, the unknown id, is among them.
        place: int64 [items], which of them each needed item has.
        weights: float32 [n, dim], to be learned.
    """

    rows: NDArray[np.int64]
    place: Tensor
    weights: Tensor

    @property
    def gradient(self) -> Tensor:
        """Of the weights, float32 [n, dim]; zero where a worker had nothing to learn in this step."""
        return torch.zeros_like(self.weights) if self.weights.grad is None else self.weights.grad


class ItemTable:
    """An embedding table under Adam without weight decay, its optimizer state, and its averaged weights.

    Args:
        weight: float32 [rows, dim], updated in place.
    """

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        self.average, self.first, self.second = weight.clone(), torch.zeros_like(weight), torch.zeros_like(weight)
        self.steps = 0
        self._begin()

    def _begin(self) -> None:
        """All rows are up to date: count anew which of them are left behind, and at which step."""
        self._left_at = np.zeros(len(self.weight), dtype=np.int32)  # steps since here
        self._now = 0
        self._moved, self._mean_moved, self._kept = np.zeros(1), np.zeros(1), np.zeros(1)

    def fetch(self, needed: NDArray[np.int64]) -> Rows:
        """Some rows as they are now, int64 [items], to be learned: `step` reads their gradient."""
        rows, places = np.unique(np.append(0, needed), return_inverse=True)
        self._catch_up(rows)
        at, place = (torch.from_numpy(one).to(self.weight.device) for one in (rows, places[1:]))
        return Rows(rows, place, self.weight.index_select(0, at).requires_grad_())

    def step(self, given: Rows, rate: float, decay: float) -> None:
        """One step of Adam and of the average.

        Args:
            given: what `fetch` gave; the others' gradient is zero.
            rate: learning rate.
            decay: what the average keeps of itself.
        """
        (b1, b2), rows, gradient = BETAS, given.rows, given.gradient
        at = torch.from_numpy(rows).to(self.weight.device)
        self.steps += 1
        unit = _unit(self.steps)
        weight, average, first, second = self._read(at)
        first.lerp_(gradient, 1 - b1)
        second.mul_(b2).addcmul_(gradient, gradient, value=1 - b2)
        weight.addcdiv_(first, second.sqrt().add_(EPSILON * (1 - b2**self.steps) ** 0.5), value=-rate * unit)
        self._write(at, weight, average.lerp_(weight, 1 - decay), first, second)
        self._now += 1
        if self._now >= len(self._moved):
            self._moved, self._mean_moved, self._kept = (
                np.concatenate([one, np.zeros(len(one))]) for one in (self._moved, self._mean_moved, self._kept)
            )
        behind = np.arange(min(MEMORY, self._now), 0, -1)  # steps since each of the latest ones
        self._moved[self._now - len(behind) : self._now] += rate * unit * (b1 / b2**0.5) ** behind
        before = slice(0, self._now)
        self._mean_moved[before] += (1 - decay) * (self._moved[before] - self._mean_moved[before])
        self._kept[self._now] = self._kept[self._now - 1] + np.log(decay)
        self._left_at[rows] = self._now

    def settle(self) -> None:
        """Bring all rows up to date."""
        for first in range(0, len(self.weight), BLOCK_ROWS):
            self._catch_up(np.arange(first, min(first + BLOCK_ROWS, len(self.weight))))
        self._begin()

    def _catch_up(self, rows: NDArray[np.int64]) -> None:
        """Steps that some rows were left out of, all at once."""
        (b1, b2), device = BETAS, self.weight.device
        at, left = torch.from_numpy(rows).to(device), self._left_at[rows]
        if not (left < self._now).any():
            return

        def column(values: NDArray[Any]) -> Tensor:
            return torch.from_numpy(values.astype(np.float32)).to(device)[:, None]

        behind = self._now - left
        weight, average, first, second = self._read(at)
        epsilon = EPSILON * np.sqrt(1 - b2 ** (self.steps - behind).astype(np.float64))
        direction = first / (second.sqrt() + column(epsilon)).clamp_(min=1e-30)  # where a row has never had a gradient, both are zero
        kept = np.exp(self._kept[self._now] - self._kept[left])
        average.lerp_(weight, column(1 - kept)).sub_(direction * column(self._mean_moved[left]))
        weight.sub_(direction.mul_(column(self._moved[left])))
        self._write(at, weight, average, first.mul_(column(b1**behind)), second.mul_(column(b2**behind)))
        self._left_at[rows] = self._now

    def _read(self, at: Tensor) -> list[Tensor]:
        return [one.index_select(0, at) for one in (self.weight, self.average, self.first, self.second)]

    def _write(self, at: Tensor, *given: Tensor) -> None:
        for one, values in zip((self.weight, self.average, self.first, self.second), given, strict=True):
            one.index_copy_(0, at, values)

    def state(self) -> dict[str, Any]:
        """What `load` continues from, beside weights and average; all rows are up to date."""
        return {"steps": self.steps, "first": self.first.cpu(), "second": self.second.cpu()}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from what `state` gave."""
        self.steps = state["steps"]
        self.first.copy_(state["first"])
        self.second.copy_(state["second"])
        self._begin()


def _unit(step: int) -> float:
    """What Adam's correction of both moments' bias leaves of a learning rate."""
    return float((1 - BETAS[1] ** step) ** 0.5 / (1 - BETAS[0] ** step))
