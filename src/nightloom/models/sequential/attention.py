"""Causal attention within packed windows, with a learned bias on how far apart two events are in time and in place.

Queries are taken a span at a time and see the keys up to the span's end only, since the rest lies in their future. On CPUs, forward
and backward are written out. Heads are taken one by one, as copies of a strided head cost many times those of whole rows. Biases are
gathered straight into the scores, and their gradient is summed by bucket: many times faster there than the gradient of an index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

NO_TIME = 0
TIME_BUCKETS = 34
"""Bucket 0: no time. Bucket b > 0: gaps of 2**(b-1) - 1 up to 2**b - 2 seconds."""
POSITION_BUCKETS = 64
"""Distances 0 .. 31 have a bucket each; beyond them buckets grow by a tenth."""
SPAN = 64
"""Queries that are taken at once."""


def time_bucket(seconds: Tensor) -> Tensor:
    """Log-bucket of gaps in int32 seconds, int32 of the same shape; `NO_TIME` for what is negative.

    floor(log2(gap + 1)) is the exponent of a floating-point number, which is read off its bits; that of 1/2 is one less.
    """
    exponent = seconds.float().add_(1).clamp_(min=0.5).view(torch.int32).bitwise_right_shift_(23)
    return exponent.sub_(126)


def position_bucket(distance: Tensor) -> Tensor:
    """Bucket of non-negative distances in events: exact when near, logarithmic when far."""
    exact = POSITION_BUCKETS // 2
    far = exact + (torch.log(distance.clamp(min=exact).float() / exact) / np.log(1.1)).long()
    return torch.where(distance < exact, distance, far.clamp(max=POSITION_BUCKETS - 1))


def bias_table(position: Tensor, time: Tensor | None) -> Tensor:
    """Bias of every pair of buckets, float [heads, cells]; the last cell is -inf, for what lies ahead.

    Args:
        position: float [heads, POSITION_BUCKETS].
        time: float [heads, TIME_BUCKETS]; None where there is no time.
    """
    both = position if time is None else (time[:, :, None] + position[:, None, :]).flatten(1)
    return torch.cat([both, both.new_full((len(both), 1), -torch.inf)], 1)


@dataclass(frozen=True)
class Span:
    """Queries of all windows at some places, and the cell of `bias_table` for each key that they may see.

    Attributes:
        first: place of the first query.
        stop: place behind the last query; keys are those before it.
        cells: int64 [windows, stop - first, stop]; [1, stop - first, stop] without times, since all windows then have the same.
    """

    first: int
    stop: int
    cells: Tensor


def spans(longest: int, clocks: tuple[Tensor, Tensor] | None, device: torch.device) -> list[Span]:
    """Cut the places of a padded batch into spans of queries.

    Args:
        longest: places of each window.
        clocks: None without time; else two arrays of seconds, each int32 [windows, longest]. The first says when the event at a place
            happened; where that is not known it is later than any request. The second says when the request there is made.
        device: where the cells go.
    """
    steps, found, first = torch.arange(longest, device=device), [], 0
    while first < longest:
        stop = first + SPAN if longest - first > SPAN + SPAN // 4 else longest
        distance = steps[first:stop, None] - steps[None, :stop]
        near = position_bucket(distance.clamp(min=0)).int()
        if clocks is None:
            cells = near.masked_fill(distance < 0, POSITION_BUCKETS).long()[None]
        else:
            times, asked = clocks
            cells = time_bucket(asked[:, first:stop, None] - times[:, None, :stop]).mul_(POSITION_BUCKETS).add_(near)
            # The cell of what lies ahead is the last one, so a maximum puts it there; it is many times faster than a mask.
            cells = torch.maximum(cells, (distance < 0).int() * (TIME_BUCKETS * POSITION_BUCKETS)).long()
        found.append(Span(first, stop, cells))
        first = stop
    return found


class Attention(torch.autograd.Function):
    """softmax(q k^T / sqrt(width) + bias) v of each head, from packed tokens to packed tokens."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, table: Tensor, place: Tensor, inside: Tensor, found: list[Span]) -> Tensor:
        """Attend.

        Args:
            ctx: torch's.
            qkv: float [tokens, 3 * dim], queries, keys and values of all heads side by side.
            table: float32 [heads, cells], see `bias_table`.
            place: int64 [tokens], `window * longest + place` of each token.
            inside: int64 [windows * longest], the token at each place; `tokens` where there is none.
            found: what `spans` gave.

        Returns:
            float [tokens, dim].
        """
        heads, dim, windows = len(table), qkv.shape[1] // 3, len(inside) // found[-1].stop
        width = dim // heads
        # What stands in free places does not matter here, since nothing real looks there; its own gradient is zero.
        padded = qkv.index_select(0, inside.clamp(max=len(qkv) - 1)).view(windows, -1, 3 * dim)
        biases = table.to(qkv.dtype)
        attended, kept = padded.new_empty(*padded.shape[:2], dim), []
        for head, bias in enumerate(biases):
            q, k, v = (padded[..., at : at + width].contiguous() for at in range(head * width, 3 * dim, dim))
            q *= width**-0.5
            for span in found:
                scores = bias.index_select(0, span.cells.view(-1)).view(span.cells.shape).expand(windows, -1, -1).contiguous()
                scores.baddbmm_(q[:, span.first : span.stop], k[:, : span.stop].transpose(1, 2))
                p = torch.softmax(scores, -1)
                attended[:, span.first : span.stop, head * width : (head + 1) * width] = p @ v[:, : span.stop]
                kept.append(p)
            kept += [q, k, v]
        ctx.found, ctx.shape = found, (heads, table.shape[1])
        ctx.save_for_backward(place, inside, *kept)
        return attended.view(-1, dim).index_select(0, place)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """Gradients of `qkv` and of the table."""
        place, inside, *kept = ctx.saved_tensors
        found, (heads, cells) = ctx.found, ctx.shape
        dim, windows, each = grad.shape[1], len(inside) // found[-1].stop, len(found) + 3
        width = dim // heads
        padded = torch.cat([grad, grad.new_zeros(1, dim)]).index_select(0, inside).view(windows, -1, dim)
        d_qkv, d_table = padded.new_empty(*padded.shape[:2], 3 * dim), grad.new_zeros(heads, cells, dtype=torch.float32)
        for head in range(heads):
            *ps, q, k, v = kept[head * each : (head + 1) * each]
            at_q, at_k, at_v = (d_qkv[..., at : at + width] for at in range(head * width, 3 * dim, dim))
            d_out = padded[..., head * width : (head + 1) * width].contiguous()
            d_k = d_v = torch.empty(0)
            for span, p in zip(reversed(found), reversed(ps), strict=True):
                rows, seen = slice(span.first, span.stop), slice(span.stop)
                to_v = p.transpose(1, 2) @ d_out[:, rows]
                # The one private function of torch in use: by public ones the scores would be passed over three times more.
                d_scores = torch._softmax_backward_data(d_out[:, rows] @ v[:, seen].transpose(1, 2), p, -1, p.dtype)
                to_k = d_scores.transpose(1, 2) @ q[:, rows]
                torch.mul(d_scores @ k[:, seen], width**-0.5, out=at_q[:, rows])
                d_biases = d_scores.float() if len(span.cells) == windows else d_scores.sum(0, dtype=torch.float32)
                d_table[head].scatter_add_(0, span.cells.view(-1), d_biases.view(-1))
                if span is found[-1]:  # it sees all keys, so its gradients are the sums that those of the others are added to
                    d_k, d_v = to_k.float(), to_v.float()
                else:
                    d_k[:, seen] += to_k
                    d_v[:, seen] += to_v
            at_k.copy_(d_k)
            at_v.copy_(d_v)
        return d_qkv.view(-1, 3 * dim).index_select(0, place), d_table, None, None, None
