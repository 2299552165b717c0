"""The click head: p = sigmoid(f(W u + X_i + C c)).

User u, item i and the occasion's context c are added up in one space, W and C being linear and each categorical value having a vector;
f(h) = w h + MLP(h). Several such networks, alike but for their seeds, are trained at once, and their log-odds averaged (Lakshminarayanan,
Pritzel and Blundell, Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles, NeurIPS 2017).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nightloom.models.clicks.base import BoolArray, ClickModel, FloatArray
from nightloom.models.clicks.features import Inputs

if TYPE_CHECKING:
    from nightloom.config import ClicksConfig

CODE_SCALE = 0.1
"""Vectors of categorical values enter at a tenth of their size, so that they move slowly: most values are rare, and counters know them."""
HIDDEN_NUMBERS = 0.1
"""Share of numbers that is hidden in a step of training."""
ROWS_AT_ONCE = 1 << 15


class HeadNet(nn.Module):
    """Networks side by side, with no parameter in common.

    Args:
        members: how many.
        n_codes: size of the code space.
        n_numbers: numbers of a row.
        dim: width of the space in which all is added up.
        dropout: of the hidden layers.
        usual: log-odds of the overall rate, where training starts.
    """

    def __init__(self, members: int, n_codes: int, n_numbers: int, dim: int, dropout: float, usual: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout

        def uniform(*shape: int) -> nn.Parameter:
            return nn.Parameter((2 * torch.rand(members, *shape) - 1) / max(shape[0], 1) ** 0.5)

        def constant(value: float, *shape: int) -> nn.Parameter:
            return nn.Parameter(torch.full((members, *shape), value))

        self.codes = constant(0.0, n_codes, dim)
        self.numbers, self.numbers_bias = uniform(n_numbers, dim), constant(0.0, 1, dim)
        self.hidden, self.hidden_bias = uniform(dim, dim), constant(0.0, 1, dim)
        self.last = constant(0.0, dim, 1)
        self.direct = nn.Parameter(0.1 * torch.randn(members, dim, 1))
        self.usual = constant(usual, 1, 1)

    @property
    def members(self) -> int:
        """How many networks."""
        return len(self.codes)

    def forward(self, codes: Tensor, numbers: Tensor) -> Tensor:
        """Log-odds of each network for its own rows.

        Args:
            codes: int64 [members, rows, fields].
            numbers: float32 [members, rows, n_numbers].

        Returns:
            float32 [members, rows].
        """
        members, n_codes, dim = self.codes.shape
        own = codes + n_codes * torch.arange(members, device=codes.device)[:, None, None]
        valued = functional.embedding(own, self.codes.view(-1, dim)).sum(2)
        seen = functional.dropout(numbers, HIDDEN_NUMBERS, self.training)
        h = torch.baddbmm(self.numbers_bias, seen, self.numbers) + CODE_SCALE * valued
        deep = functional.dropout(h.relu(), self.dropout, self.training)
        deep = functional.dropout(torch.baddbmm(self.hidden_bias, deep, self.hidden).relu(), self.dropout, self.training)
        return (torch.baddbmm(self.usual, h, self.direct) + deep @ self.last).squeeze(2)


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

    def path(self, train: Inputs, clicked: BoolArray, asked: Inputs) -> FloatArray:
        """Log-odds after each epoch."""
        return np.array([self.log_odds(asked) for _ in self._epochs(train, clicked, self.config.epochs)])

    def fit(self, train: Inputs, clicked: BoolArray, step: int) -> Self:
        """Train for `step` + 1 epochs."""
        for _ in self._epochs(train, clicked, step + 1):
            pass
        return self

    @torch.no_grad()
    def log_odds(self, asked: Inputs) -> FloatArray:
        """Mean over networks."""
        assert self.net is not None, "fit first"
        self.net.eval()
        answers = [np.zeros(0, dtype=np.float32)]
        for first in range(0, len(asked.codes), ROWS_AT_ONCE):
            codes, numbers = _tensors(asked.take(slice(first, first + ROWS_AT_ONCE)))
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
