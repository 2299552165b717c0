"""A causal transformer over packed histories, with a learned sense of time.

Pre-norm blocks with a gated attention output and SwiGLU. Time enters twice: to each token is added an embedding of
the gap between its event and the next request, and attention has a learned bias per head on the time between the
request and each past event (HSTU, Zhai et al. 2024), beside one on relative position. Linear layers run on real
tokens only; attention alone pads, to the longest window of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nightloom.models.windows import BOS, Windows

if TYPE_CHECKING:
    from nightloom.config import ModelConfig

NO_TIME = 0
TIME_BUCKETS = 34
"""Bucket 0: no time. Bucket b > 0: gaps of 2**(b-1) - 1 up to 2**b - 2 seconds; the last takes all gaps beyond 136 years."""
POSITION_BUCKETS = 64
"""Distances 0 .. 31 have a bucket each; beyond them buckets grow by a tenth."""


def time_bucket(seconds: Tensor) -> Tensor:
    """Log-bucket of gaps in seconds, int64 of the same shape; negative gaps count as none."""
    return (torch.log2(seconds.clamp(min=0).float() + 1).long() + 1).clamp(max=TIME_BUCKETS - 1)


def position_bucket(distance: Tensor) -> Tensor:
    """Bucket of non-negative distances in events: exact when near, logarithmic when far."""
    exact = POSITION_BUCKETS // 2
    far = exact + (torch.log(distance.clamp(min=exact).float() / exact) / np.log(1.1)).long()
    return torch.where(distance < exact, distance, far.clamp(max=POSITION_BUCKETS - 1))


@dataclass(frozen=True)
class Packed:
    """A batch of windows on the device: flat tokens, and where each stands in the padded batch.

    Attributes:
        items: int64 [tokens], -1 for BOS.
        kinds: int64 [tokens].
        gap: int64 [tokens], bucket of the time from the token's event to the next request.
        place: int64 [tokens], `window * longest + position`.
        last: int64 [windows], the last token of each window.
        since: int64 [windows, longest, longest], bucket of the time from past event j (last axis) to request i; None without time.
        windows: number of windows.
        longest: tokens of the longest window.
    """

    items: Tensor
    kinds: Tensor
    gap: Tensor
    place: Tensor
    last: Tensor
    since: Tensor | None
    windows: int
    longest: int

    @classmethod
    def of(cls, windows: Windows, device: torch.device, *, use_time: bool, timeless: np.ndarray | None = None) -> Packed:
        """Lay out windows.

        Args:
            windows: a batch; lengths should be alike, since attention pads to the longest.
            device: where the tensors go.
            use_time: whether the data have times and the model uses them.
            timeless: bool [windows], windows whose times are unknown.
        """
        n, lengths = len(windows), windows.lengths
        longest = int(lengths.max())
        window = np.repeat(np.arange(n), lengths)
        place = torch.from_numpy(window * longest + np.arange(len(window)) - np.repeat(windows.offsets[:-1], lengths)).to(device)
        items = torch.from_numpy(windows.items).to(device)
        gap, since = torch.zeros_like(items), None
        if use_time:
            times, asked = torch.from_numpy(windows.times).to(device), torch.from_numpy(windows.asked).to(device)
            blind = items == BOS
            if timeless is not None:
                blind = blind | torch.from_numpy(timeless[window]).to(device)
            gap = time_bucket(asked - times).masked_fill(blind, NO_TIME)

            def padded(values: Tensor, fill: int) -> Tensor:
                return values.new_full((n * longest,), fill).index_copy_(0, place, values).view(n, longest)

            since = time_bucket(padded(asked, 0)[:, :, None] - padded(times, 0)[:, None, :])
            since = since.masked_fill(padded(blind, True)[:, None, :], NO_TIME)
        return cls(
            items,
            torch.from_numpy(windows.kinds).to(device),
            gap,
            place,
            torch.from_numpy(windows.offsets[1:] - 1).to(device),
            since,
            n,
            longest,
        )


class BucketBias(torch.autograd.Function):
    """`table[:, buckets]` whose gradient is a histogram; the general index backward is many times slower on CPU."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, buckets: Tensor, dtype: torch.dtype) -> Tensor:
        """float [heads, n_buckets], int64 [...] -> dtype [heads, ...]."""
        ctx.save_for_backward(buckets)
        ctx.n_buckets = table.shape[1]
        return table.to(dtype)[:, buckets]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Sum the gradient by bucket."""
        (buckets,) = ctx.saved_tensors
        flat, n = buckets.flatten(), ctx.n_buckets
        return torch.stack([torch.bincount(flat, head.reshape(-1).float(), minlength=n) for head in grad]).float(), None, None


class Block(nn.Module):
    """Gated self-attention, then SwiGLU, each behind a norm and a residual."""

    def __init__(self, dim: int, heads: int, depth: int) -> None:
        super().__init__()
        self.heads = heads
        hidden = 2 * dim
        self.attention_norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)  # apart from the gate, since gradients of slices are put together slowly
        self.gate = nn.Linear(dim, dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.ffn_norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, hidden, bias=False)
        self.up_gate = nn.Linear(dim, hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)
        for layer in (self.qkv, self.gate, self.up, self.up_gate):
            nn.init.xavier_normal_(layer.weight)
        for layer in (self.out, self.down):  # residual branches start small, the more so the deeper the stack (GPT-2)
            nn.init.normal_(layer.weight, std=0.02 / (2 * depth) ** 0.5)

    def forward(self, x: Tensor, batch: Packed, bias: Tensor, keep: Tensor | None) -> Tensor:
        """Tokens [tokens, dim] -> the same; bias [windows or 1, heads, longest, longest]; keep: scaled dropout masks [2, tokens, dim]."""
        dim = x.shape[1]
        normed = self.attention_norm(x)
        qkv = self.qkv(normed)
        padded = qkv.new_zeros(batch.windows * batch.longest, 3 * dim).index_copy(0, batch.place, qkv)
        q, k, v = padded.view(batch.windows, batch.longest, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(q * (dim // self.heads) ** -0.5 @ k.transpose(-1, -2) + bias, -1, dtype=q.dtype)
        attended = (weights @ v).transpose(1, 2).reshape(-1, dim).index_select(0, batch.place)
        y = self.out(attended * torch.sigmoid(self.gate(normed)))
        x = x + (y if keep is None else y * keep[0])
        normed = self.ffn_norm(x)
        y = self.down(F.silu(self.up_gate(normed)) * self.up(normed))
        return x + (y if keep is None else y * keep[1])


class HistoryEncoder(nn.Module):
    """User vectors from histories: what the user wants next, at each token.

    Args:
        config: widths and depth.
        n_kinds: event names; their embedding is left out when there is only one.
        has_time: whether the data have times.
    """

    def __init__(self, config: ModelConfig, n_kinds: int, has_time: bool) -> None:
        super().__init__()
        dim, self.heads = config.dim, config.heads
        self.use_time = config.use_time and has_time
        self.bos = nn.Parameter(torch.randn(dim))
        if n_kinds > 1:
            self.kinds = nn.Embedding(n_kinds, dim)
            nn.init.normal_(self.kinds.weight, std=0.3)
        self.has_kinds = n_kinds > 1
        self.blocks = nn.ModuleList(Block(dim, config.heads, config.blocks) for _ in range(config.blocks))
        self.position_bias = nn.Parameter(torch.zeros(config.blocks * config.heads, POSITION_BUCKETS))
        if self.use_time:
            self.gaps = nn.Embedding(TIME_BUCKETS, dim)
            nn.init.normal_(self.gaps.weight, std=0.3)
            self.time_bias = nn.Parameter(torch.zeros(config.blocks * config.heads, TIME_BUCKETS))
        self.out_norm = nn.LayerNorm(dim)
        self.sites = 1 + 2 * config.blocks

    def forward(self, vectors: Tensor, batch: Packed, keep: Tensor | None = None) -> Tensor:
        """Encode a batch.

        Args:
            vectors: float32 [tokens, dim], the item vector of each token (anything at BOS).
            batch: where the tokens stand.
            keep: scaled dropout masks [sites, tokens, dim], or None for no dropout.

        Returns:
            float32 [tokens, dim].
        """
        x = torch.where((batch.items == BOS)[:, None], self.bos, vectors)
        if self.use_time:
            x = x + self.gaps(batch.gap)
        if self.has_kinds:
            x = x + self.kinds(batch.kinds)
        if keep is not None:
            x = x * keep[0]
        biases = self._biases(batch)
        for index, block in enumerate(self.blocks):
            x = block(x, batch, biases[index], None if keep is None else keep[1 + 2 * index : 3 + 2 * index])
        return self.out_norm(x)

    def _biases(self, batch: Packed) -> list[Tensor]:
        """Attention bias of each block, [windows or 1, heads, longest, longest]; -inf on what lies ahead."""
        device = batch.items.device
        dtype = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else self.position_bias.dtype
        steps = torch.arange(batch.longest, device=device)
        distance = steps[:, None] - steps[None, :]
        near = BucketBias.apply(self.position_bias, position_bucket(distance.clamp(min=0)), dtype)
        near = near.masked_fill(distance < 0, -torch.inf)[:, None].split(self.heads)
        if batch.since is None:
            return [one.transpose(0, 1) for one in near]
        return [
            (one + BucketBias.apply(table, batch.since, dtype)).transpose(0, 1)
            for one, table in zip(near, self.time_bias.split(self.heads), strict=True)
        ]
