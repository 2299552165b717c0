"""The label head: the probability that an event is positive (liked, clicked, bought), p = f(W u + X_i + C c) on the vectors of retrieval.

u is the user's vector just before the event, X_i the item's, c the counters of `label_counters.py`; f(h) = w h + MLP(h). The head is
trained in one loss with retrieval (`training.label_weight`). Retrieval's score of the item is not in c: retrieval was fitted to score
the positive events of training high, so on them its score is more informative than on new events.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from nightloom.models.heads.label_counters import COUNTERS

SCALE = 3.0
"""Counters are logarithms of up to about 10; divided by this they have the scale of the other inputs."""
DROPOUT, SITES = 0.3, 3
"""Dropout in training, and the number of places where it acts: the user's vector, and before and after the hidden layer."""


class LabelHead(nn.Module):
    """Log-odds that events are positive.

    Args:
        dim: width of user and item vectors.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.negative = nn.Parameter(torch.zeros(dim))
        self.user = nn.Linear(dim, dim, bias=False)
        self.item = nn.Linear(dim, dim, bias=False)
        self.context = nn.Linear(len(COUNTERS), dim)
        self.hidden = nn.Linear(dim, dim)
        self.last = nn.Linear(dim, 1)
        self.direct = nn.Linear(dim, 1, bias=False)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def mark(self, vectors: Tensor, negative: NDArray[np.bool_]) -> Tensor:
        """Item vectors of the histories' tokens, [tokens, dim], with a learned vector added where the event was not positive.

        Args:
            vectors: float [tokens, dim].
            negative: bool [n], for the first n tokens; the rest is padding.
        """
        marks = torch.from_numpy(negative).to(vectors.device, vectors.dtype)
        return vectors + functional.pad(marks, (0, len(vectors) - len(marks)))[:, None] * self.negative.to(vectors.dtype)

    def forward(self, users: Tensor, items: Tensor, counters: Tensor, keep: Tensor | None = None) -> Tensor:
        """Log-odds.

        Args:
            users: float32 [n, dim]; their length is normalised away, since it carries the temperature of retrieval.
            items: float32 [n, dim].
            counters: float32 [n, COUNTERS].
            keep: scaled dropout masks, float32 [SITES, n, dim]; None for no dropout.

        Returns:
            float32 [n].
        """
        first, second, third = (1.0, 1.0, 1.0) if keep is None else keep
        steady = functional.layer_norm(users, users.shape[-1:]) * first
        h = self.user(steady) + self.item(items) + self.context(counters / SCALE)
        deep = functional.silu(self.hidden(functional.silu(h) * second)) * third
        return (self.direct(h) + self.last(deep)).squeeze(-1)
