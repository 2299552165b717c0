"""The click head: p = sigmoid(f(W u + X_i + C c)), see `HeadNet`.

Several such networks, alike but for their seeds, are trained at once, and their log-odds averaged. See Lakshminarayanan,
Pritzel and Blundell, Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles, NeurIPS 2017.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nightloom.models.ctr.base import BoolArray, ClickModel, FloatArray
from nightloom.models.ctr.features import Inputs
from nightloom.models.heads.net import HeadNet

if TYPE_CHECKING:
    from nightloom.config import ClicksConfig

ROWS_AT_ONCE = 1 << 15


class ClickHead(ClickModel):
    """Networks that are trained together, and answer with their mean log-odds. Their path is that of epochs.

    Args:
        config: the run's section `clicks`.
        n_codes: size of the code space.
        seed: of everything random.
    """

    name: ClassVar[str] = "head"

    def __init__(self, config: ClicksConfig, n_codes: int, seed: int) -> None:
        self.config, self.n_codes, self.seed = config, n_codes, seed
        self.net: HeadNet | None = None

    def path(self, train: Inputs, clicked: BoolArray, rows: Inputs) -> FloatArray:
        """Log-odds after each epoch."""
        return np.array([self.log_odds(rows) for _ in self._epochs(train, clicked, self.config.epochs)])

    def fit(self, train: Inputs, clicked: BoolArray, step: int) -> Self:
        """Train for `step` + 1 epochs."""
        for _ in self._epochs(train, clicked, step + 1):
            pass
        return self

    @torch.no_grad()
    def log_odds(self, rows: Inputs) -> FloatArray:
        """Mean over networks."""
        if self.net is None:
            raise ValueError("the click head is not fitted: call fit first")
        self.net.eval()
        answers = [np.zeros(0, dtype=np.float32)]
        for first in range(0, len(rows.codes), ROWS_AT_ONCE):
            codes, numbers = _tensors(rows.take(slice(first, first + ROWS_AT_ONCE)))
            members = self.net.members
            answers.append(self.net(codes.expand(members, -1, -1), numbers.expand(members, -1, -1)).mean(0).numpy())
        return np.concatenate(answers).astype(np.float64)

    def _epochs(self, train: Inputs, clicked: BoolArray, epochs: int) -> Iterator[int]:
        """Train from the start; each network draws its own order of the rows."""
        config, rate = self.config, float(np.clip(clicked.mean(), 1e-4, 1 - 1e-4))
        codes, numbers = _tensors(train)
        labels = torch.from_numpy(clicked.astype(np.float32))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            usual = float(np.log(rate / (1 - rate)))
            self.net = HeadNet(config.members, self.n_codes, numbers.shape[1], config.dim, config.dropout, usual)
            optimizer = torch.optim.AdamW(self.net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, foreach=True)
            for epoch in range(epochs):
                self.net.train()
                order = torch.stack([torch.randperm(len(labels)) for _ in range(config.members)])
                for rows in order.split(config.batch_rows, dim=1):
                    answers = self.net(codes[rows], numbers[rows])
                    loss = functional.binary_cross_entropy_with_logits(answers, labels[rows], reduction="none").mean(1).sum()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                yield epoch


def _tensors(rows: Inputs) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(rows.codes), torch.from_numpy(rows.numbers)
