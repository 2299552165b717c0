"""Softmax losses over item vectors that never hold all logits at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

ROWS = 512
"""Users whose logits are held at once: small enough for the cache at a few thousand items."""


class _SoftmaxCrossEntropy(torch.autograd.Function):
    """Cross-entropy of `users @ items.T`, with gradients made in the forward pass, block by block."""

    @staticmethod
    def forward(ctx: Any, users: Tensor, items: Tensor, targets: Tensor, smoothing: float, precision: torch.dtype) -> Tensor:
        n_items = len(items)
        loss = users.new_zeros((), dtype=torch.float64)
        d_users, d_items = torch.empty_like(users), torch.zeros_like(items)
        users, items, rows = users.to(precision), items.to(precision), torch.arange(ROWS, device=users.device)
        for first in range(0, len(users), ROWS):
            block, own = users[first : first + ROWS], targets[first : first + ROWS]
            logits = block @ items.T
            p = torch.softmax(logits, 1)
            # log-sum-exp from the largest entry: its probability is at least 1 / n_items, so the logarithm is exact.
            normaliser, row = logits.amax(1) - torch.log(p.amax(1)), rows[: len(block)]
            wanted = (1 - smoothing) * logits[row, own] + (smoothing * logits.mean(1) if smoothing else 0)
            loss += (normaliser - wanted).sum(dtype=torch.float64)
            p[row, own] -= 1 - smoothing  # scatter_add_ would copy all of p twice
            if smoothing:
                p -= smoothing / n_items
            d_users[first : first + ROWS] = p @ items
            d_items += p.T @ block
        ctx.save_for_backward(d_users, d_items)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        d_users, d_items = ctx.saved_tensors
        scale = grad.to(d_users.dtype)
        return d_users * scale, d_items * scale, None, None, None


def softmax_loss(users: Tensor, items: Tensor, targets: Tensor, smoothing: float = 0.0, precision: torch.dtype = torch.float32) -> Tensor:
    """Softmax cross-entropy over the whole catalogue.

    Args:
        users: float32 [n, dim], already divided by the temperature.
        items: float32 [items, dim].
        targets: int64 [n], rows of `items`.
        smoothing: share of the target's mass that is spread over all items.
        precision: of the matrix products; softmax and sums are float32 always.

    Returns:
        float64 [], the sum over the n targets.
    """
    return _SoftmaxCrossEntropy.apply(users, items, targets, smoothing, precision)


def sampled_softmax_loss(users: Tensor, items: Tensor, targets: Tensor, negatives: Tensor, log_q: Tensor, smoothing: float = 0.0) -> Tensor:
    """Softmax cross-entropy over the target and negatives that the whole batch shares, corrected for how they were drawn.

    With -log q on the logits of the negatives, their sum estimates the sum over the catalogue without bias
    (Bengio and Senecal 2008; Yi et al. 2019). A negative that is a position's own target does not count there.

    Args:
        users: float32 [n, dim], already divided by the temperature.
        items: float32 [rows, dim].
        targets: int64 [n], rows of `items`.
        negatives: int64 [k], rows of `items`, drawn with replacement.
        log_q: float32 [k], log of the expected number of draws of each negative.
        smoothing: share of the target's mass that is spread over target and negatives.

    Returns:
        float64 [], the sum over the n targets.
    """
    positive = (users * items[targets]).sum(1, keepdim=True)
    logits = users @ items[negatives].T - log_q
    logits = logits.masked_fill(negatives == targets[:, None], -torch.inf)
    everything = torch.cat([positive, logits], 1)
    loss = torch.logsumexp(everything, 1) - positive[:, 0]
    if smoothing:
        finite = torch.isfinite(everything)
        mean = everything.masked_fill(~finite, 0).sum(1) / finite.sum(1)
        loss = loss + smoothing * (positive[:, 0] - mean)
    return loss.sum(dtype=torch.float64)
