"""Baseline mlp: p = f(W u + X_i), a small network that weighs a user's summary against each item."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from nightloom.core.ragged import gather, offsets_of, owners
from nightloom.core.sequences import Histories
from nightloom.models.baselines.neural import NeuralRecommender
from nightloom.models.sequential.losses import negatives_draw

CELLS = 1 << 22
"""Floats of hidden layers that are held at once when the whole catalogue is scored (16 MiB)."""


class MLPNet(nn.Module):
    """Item vectors X, the map W, and f. Squared ReLUs: (W u)_k + X_ik squared holds their product, which a match is made of."""

    def __init__(self, n_items: int, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.items = nn.Embedding(n_items, dim)
        nn.init.normal_(self.items.weight, std=dim**-0.5)
        self.user = nn.Linear(dim, dim)
        self.first, self.last = nn.Linear(dim, hidden), nn.Linear(hidden, 1, bias=False)
        self.popularity = nn.Embedding(n_items, 1)
        nn.init.zeros_(self.popularity.weight)
        self.dropout = nn.Dropout(dropout)

    def users(self, items: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
        """W u, float32 [bags, dim]; bag b is the items from `offsets[b]` on, u their weighted sum."""
        bags = F.embedding_bag(items, self.items.weight, offsets, mode="sum", per_sample_weights=weights)
        return self.user(self.dropout(bags))

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """Logits of pairs.

        Args:
            users: float32 [..., dim], what `users` gave.
            items: int64 [...], of a shape that broadcasts with that of the users.

        Returns:
            float32 [...].
        """
        both = self.dropout(torch.square(F.relu(users + self.items(items))))
        return (self.last(torch.square(F.relu(self.first(both)))) + self.popularity(items))[..., 0]


class MLP(NeuralRecommender):
    """p = f(W u + X_i): u is the recency-weighted mean of the history's item vectors, X_i the item's, f two layers.

    Every positive event is a target of what came before it. The loss is the softmax over the target and negatives that
    a step shares, drawn half by popularity and half evenly. Their logits are corrected by -log q (Yi et al. 2019,
    Sampling-bias-corrected neural modeling). On MovieLens-100K's validation part (leave-one-out) NDCG@10 was .091 with these defaults and
    .087 with half the learning rate; wider ones cost minutes. Deep models of this form are He et al. 2017, Neural collaborative filtering.

    Args:
        dim: width of the vectors.
        hidden: width of f.
        dropout: on the bags and within f.
        recency: weight that an event loses with each later one.
        memory: latest events that are looked at.
        negatives: negatives that a step shares.
        batch: targets in a step.
        epochs: most epochs of the search.
        patience: epochs without a better NDCG@10 before it stops.
        learning_rate: of AdamW.
        weight_decay: on the linear layers.
        seed: of everything random.
    """

    family: ClassVar[str] = "mlp"
    settings = (
        *("dim", "hidden", "dropout", "recency", "memory", "negatives", "batch", "epochs", "patience"),
        *("learning_rate", "weight_decay", "seed"),
    )

    def __init__(
        self,
        dim: int = 32,
        hidden: int = 32,
        dropout: float = 0.2,
        recency: float = 0.8,
        memory: int = 32,
        negatives: int = 64,
        batch: int = 512,
        epochs: int = 30,
        patience: int = 3,
        learning_rate: float = 1e-2,
        weight_decay: float = 0.01,
        seed: int = 7,
    ) -> None:
        self.dim, self.hidden, self.dropout, self.recency, self.memory = dim, hidden, dropout, recency, memory
        self.negatives, self.batch, self.epochs, self.patience = negatives, batch, epochs, patience
        self.learning_rate, self.weight_decay, self.seed = learning_rate, weight_decay, seed

    def _network(self) -> MLPNet:
        return MLPNet(self.n_items, self.dim, self.hidden, self.dropout)

    def _losses(self, histories: Histories, random: np.random.Generator) -> Iterator[tuple[Tensor, int]]:
        draw = negatives_draw(histories, self.n_items) if len(histories.items) else np.ones(1)
        begin = np.repeat(histories.offsets[:-1], histories.lengths)
        order = random.permutation(len(histories.items))
        for first in range(0, len(order), self.batch):
            rows = order[first : first + self.batch]
            drawn = np.searchsorted(draw, random.random(self.negatives))
            log_q = np.log(np.diff(draw, prepend=0)[drawn] * len(drawn)).astype(np.float32)
            targets, negatives = torch.from_numpy(histories.items[rows].astype(np.int64)), torch.from_numpy(drawn)
            users = self.net.users(*self._bags(histories, begin[rows], rows))
            right = self.net(users, targets)
            wrong = self.net(users[:, None], negatives[None, :]) - torch.from_numpy(log_q)
            wrong = wrong.masked_fill(negatives == targets[:, None], -torch.inf)
            yield (torch.logsumexp(torch.cat([right[:, None], wrong], 1), 1) - right).sum(), len(rows)

    def _logits(self, histories: Histories) -> NDArray[np.float32]:
        users = self.net.users(*self._bags(histories, histories.offsets[:-1], histories.offsets[1:]))
        out = np.empty((len(histories), self.n_items), dtype=np.float32)
        items = torch.arange(self.n_items)
        step = max(1, CELLS // max(self.dim * len(histories), 1))
        for first in range(0, self.n_items, step):
            out[:, first : first + step] = self.net(users[:, None], items[None, first : first + step]).numpy()
        return out

    def _bags(self, histories: Histories, begin: NDArray[np.int64], end: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        """Items, weights and offsets of bags: the latest events of `begin[i]:end[i]`, weights of a bag summing to 1."""
        start = np.maximum(begin, end - self.memory)
        offsets, flat = offsets_of(end - start), gather(start, end - start)
        owner = owners(offsets)
        weights = np.power(self.recency, end[owner] - 1 - flat, dtype=np.float64)
        weights /= np.bincount(owner, weights, minlength=len(end))[owner]
        content = (histories.items[flat].astype(np.int64), weights.astype(np.float32), offsets[:-1])
        items, weighing, borders = (torch.from_numpy(one) for one in content)
        return items, weighing, borders
