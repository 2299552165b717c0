"""Softmax losses over item vectors that never hold all logits at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from nightloom.core.sequences import Histories

FULL_SOFTMAX_ITEMS = 50_000
"""Largest catalogue whose softmax is taken over all items; above it negatives are sampled."""
SAMPLED_NEGATIVES = 4096
"""Negatives that a batch shares, where the config names no number."""
ROWS = 512
"""Users whose logits are held at once: small enough for the cache at a few thousand items."""
STEP = 64
"""Users are filled up to a multiple of this, since the CPU's library compiles a matrix product for every shape that it meets."""
WIDE = 32
"""Items are filled up to a multiple of this, as vector instructions like it: MKL multiplies 1,696 items 1.2 to 1.3 times as fast as
1,682 (AMD EPYC with AVX2, float32)."""
LARGEST = 60.0
"""Logits whose size is bounded by this are put into exp as they are, which saves finding the largest of each row."""


class _SoftmaxCrossEntropy(torch.autograd.Function):
    """Cross-entropy of `users @ items.T`, with gradients made in the forward pass, block by block.

    With e = exp(logits) and its row sums s, the loss is log s less the target's logit. Its gradients are e @ items / s less the
    target's vector, and e.T @ (users / s) less the users at their targets. No probability is ever written out.
    """

    @staticmethod
    def forward(ctx: Any, users: Tensor, items: Tensor, targets: Tensor, smoothing: float, precision: torch.dtype) -> Tensor:
        # Smoothing moves a share of the target to all items alike, that is to their mean.
        mean, wanted = items.mean(0), items.index_select(0, targets)
        wanted = wanted.lerp(mean, smoothing) if smoothing else wanted
        d_users, d_items = torch.empty_like(users), (users.sum(0) * (-smoothing / len(items))).repeat(len(items), 1)
        d_items.index_add_(0, targets, users, alpha=smoothing - 1)
        # A share of a batch may ask for labels alone, so there may be no users.
        safe = len(users) == 0 or float(users.norm(dim=1).amax() * items.norm(dim=1).amax()) < LARGEST
        loss = -torch.linalg.vecdot(users, wanted).sum(dtype=torch.float64)
        n, known = len(users), len(items)
        users = functional.pad(users.to(precision), (0, 0, 0, -n % STEP))
        items = functional.pad(items.to(precision), (0, 0, 0, -known % WIDE))
        room = items.new_empty(min(ROWS, len(users)), len(items))
        for first in range(0, n, ROWS):
            block, own = users[first : first + ROWS], slice(min(ROWS, n - first))
            logits = torch.mm(block, items.T, out=room[: len(block)])
            largest = None if safe else logits[:, :known].amax(1, keepdim=True)
            e = (logits if largest is None else logits - largest).exp_()
            e[:, known:] = 0
            total = e.sum(1, keepdim=True).float()  # summed in float32, then rounded: asking for float32 would copy all of e
            loss += (total.log() if largest is None else total.log() + largest)[own].sum(dtype=torch.float64)
            d_users[first : first + ROWS] = ((e @ items) / total)[own]
            d_items += (e.T @ (block / total).to(precision))[:known]
        ctx.save_for_backward(d_users.sub_(wanted), d_items)
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


def negatives_draw(histories: Histories, n_items: int) -> NDArray[np.float64]:
    """How negatives are drawn: half by popularity, half evenly over the items seen; cumulative, float64 [n_items]."""
    count = np.bincount(histories.items, minlength=n_items)
    cumulative = np.cumsum(0.5 * count / count.sum() + 0.5 * (count > 0) / (count > 0).sum())
    return cumulative / cumulative[-1]
