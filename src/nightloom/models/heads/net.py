"""An ensemble of networks p = sigmoid(f(W u + X_i + C c)).

User u, item i and context c are added up in one space; W and C are linear, and each categorical value has a vector.
f(h) = w h + MLP(h).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

CODE_SCALE = 0.1
"""Vectors of categorical values are scaled to a tenth, so that they learn slowly: most values are rare, and counters cover them."""
HIDDEN_NUMBERS = 0.1
"""Dropout of the numeric inputs in training."""


class HeadNet(nn.Module):
    """An ensemble of networks that share no parameter.

    Args:
        members: how many networks.
        n_codes: size of the code space.
        n_numbers: numbers of a row.
        dim: width of the common space.
        dropout: of the hidden layers.
        prior_log_odds: log-odds of the overall rate, where training starts.
    """

    def __init__(self, members: int, n_codes: int, n_numbers: int, dim: int, dropout: float, prior_log_odds: float = 0.0) -> None:
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
        self.prior_log_odds = constant(prior_log_odds, 1, 1)

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
        return (torch.baddbmm(self.prior_log_odds, h, self.direct) + deep @ self.last).squeeze(2)
