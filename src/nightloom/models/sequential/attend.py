"""Which attention runs on which device: the written-out one on CPUs, torch's own kernels elsewhere."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nightloom.models.sequential.attention import Attention, Span


def attend(qkv: Tensor, table: Tensor, place: Tensor, inside: Tensor, spans: list[Span]) -> Tensor:
    """softmax(q k^T / sqrt(width) + bias) v of each head, from packed tokens to packed tokens.

    Args:
        qkv: float [tokens, 3 * dim], queries, keys and values of all heads side by side.
        table: float32 [heads, cells], see `attention.bias_table`.
        place: int64 [tokens], `window * longest + position` of each token.
        inside: int64 [windows * longest], the token at each place; `tokens` where there is none.
        spans: what `attention.spans` gave.

    Returns:
        float [tokens, dim].
    """
    if qkv.device.type == "cpu":
        attended: Tensor = Attention.apply(qkv, table, place, inside, spans)
        return attended
    return with_kernels(qkv, table, place, inside, spans)


def with_kernels(qkv: Tensor, table: Tensor, place: Tensor, inside: Tensor, spans: list[Span]) -> Tensor:
    """The same by `scaled_dot_product_attention` with the biases as its mask; torch chooses the kernel and derives the gradients.

    A mask with a gradient rules out the flash kernel, but not the memory-efficient one. Queries come a span at a time here too,
    so keys after a span are never read.
    """
    heads, dim, longest = len(table), qkv.shape[1] // 3, spans[-1].stop
    # What stands in free places does not matter, since nothing real looks there.
    padded = qkv.index_select(0, inside.clamp(max=len(qkv) - 1)).view(-1, longest, 3, heads, dim // heads)
    q, k, v = padded.permute(2, 0, 3, 1, 4)  # each [windows, heads, longest, width]
    biases, parts = table.to(qkv.dtype), []
    for span in spans:
        mask = biases.index_select(1, span.cells.view(-1)).view(heads, *span.cells.shape).transpose(0, 1)
        mask = mask.expand(len(q), -1, -1, -1)  # without times all windows have the same
        rows = slice(span.first, span.stop)
        parts.append(F.scaled_dot_product_attention(q[:, :, rows], k[:, :, : span.stop], v[:, :, : span.stop], attn_mask=mask))
    return torch.cat(parts, 2).transpose(1, 2).reshape(-1, dim).index_select(0, place)
