"""A causal transformer over packed histories, with a learned sense of time.

Pre-norm blocks with a gated attention output and SwiGLU. Time enters twice: to each token is added an embedding of
the gap between its event and the next request, and attention has a learned bias per head on the time between the
request and each past event (HSTU, Zhai et al. 2024), beside one on relative position. Linear layers run on real
tokens only; attention alone pads, to the longest window of the batch. Both counts are rounded up to few numbers, since the CPU's
library compiles a matrix product for every shape that it meets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from nightloom.models.windows import BOS, Windows

if TYPE_CHECKING:
    from nightloom.config import ModelConfig

NO_TIME = 0
TIME_BUCKETS = 34
"""Bucket 0: no time. Bucket b > 0: gaps of 2**(b-1) - 1 up to 2**b - 2 seconds."""
LONGEST_GAP = 2 - 2**31
"""Seconds before the latest request of a batch, 68 years: what lies farther back counts as that far."""
POSITION_BUCKETS = 64
"""Distances 0 .. 31 have a bucket each; beyond them buckets grow by a tenth."""
STEP = 8
"""Tokens of a batch and of its longest window are rounded up to a multiple of this at least."""
LANES = 8
"""Places where the gradient of a bucket is summed at once."""


def time_bucket(seconds: Tensor) -> Tensor:
    """Log-bucket of gaps in seconds, int32 of the same shape; negative gaps count as none.

    floor(log2(gap + 1)) is the exponent of a floating-point number, which is read off its bits.
    """
    exponent = (seconds.clamp(min=0).float() + 1).view(torch.int32) >> 23
    return exponent.sub_(126).clamp_(max=TIME_BUCKETS - 1)


def few_shapes(n: int) -> int:
    """A count rounded up to one of few: multiples of `STEP`, and from 128 on eight to a doubling."""
    step = max(STEP, 1 << max(n.bit_length() - 4, 0))
    return -(-n // step) * step


def position_bucket(distance: Tensor) -> Tensor:
    """Bucket of non-negative distances in events: exact when near, logarithmic when far."""
    exact = POSITION_BUCKETS // 2
    far = exact + (torch.log(distance.clamp(min=exact).float() / exact) / np.log(1.1)).long()
    return torch.where(distance < exact, distance, far.clamp(max=POSITION_BUCKETS - 1))


@dataclass(frozen=True)
class Packed:
    """A batch of windows on the device: flat tokens, and where each stands in the padded batch.

    The tokens of the windows come first. A few that follow only round up their number: they look like BOS and stand in places that
    the padded batch has free, behind the ends of windows, where nothing real looks.

    Attributes:
        items: int64 [tokens], -1 for BOS.
        kinds: int64 [tokens].
        gap: int32 [tokens], bucket of the time from the token's event to the next request.
        place: int64 [tokens], `window * longest + position`.
        last: int64 [windows], the last token of each window.
        since: int32 [windows, longest, longest], bucket of the time from past event j (last axis) to request i; None without time.
        windows: number of windows.
        longest: tokens of the longest window, rounded up.
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
        longest = -(-int(lengths.max()) // STEP) * STEP
        window = np.repeat(np.arange(n), lengths)
        cell = window * longest + np.arange(len(window)) - np.repeat(windows.offsets[:-1], lengths)
        free = np.flatnonzero((np.arange(longest) >= lengths[:, None]).ravel())
        filler = free[: few_shapes(len(cell)) - len(cell)]

        def on_device(values: NDArray[Any], fill: float) -> Tensor:
            return torch.from_numpy(np.concatenate([values, np.full(len(filler), fill, values.dtype)])).to(device)

        items, place = on_device(windows.items, BOS), torch.from_numpy(np.concatenate([cell, filler])).to(device)
        gap, since = torch.zeros_like(items), None
        if use_time:
            # int32 holds gaps of up to 68 years, and is several times faster here than int64.
            now = int(windows.asked.max(initial=0))
            times, asked = (on_device(np.maximum(one - now, LONGEST_GAP).astype(np.int32), 0) for one in (windows.times, windows.asked))
            blind = items == BOS
            if timeless is not None:
                blind = blind | on_device(timeless[window], True)
            gap = time_bucket(asked - times).masked_fill_(blind, NO_TIME)

            def padded(values: Tensor, fill: int) -> Tensor:
                return values.new_full((n * longest,), fill).index_copy_(0, place, values).view(n, longest)

            since = time_bucket(padded(asked, 0)[:, :, None] - padded(times, 0)[:, None, :])
            since.masked_fill_(padded(blind, True)[:, None, :], NO_TIME)
        return cls(
            items,
            on_device(windows.kinds, 0),
            gap,
            place,
            torch.from_numpy(windows.offsets[1:] - 1).to(device),
            since,
            n,
            longest,
        )


class BucketBias(torch.autograd.Function):
    """`table[:, buckets]`; on CPU the gradient of an index is many times slower than the sums by bucket that it comes to."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, buckets: Tensor, dtype: torch.dtype) -> Tensor:
        """float [heads, n_buckets], integers [..., cells] -> dtype [heads, ..., cells]."""
        # Neighbouring cells often have the same bucket, and sums into one place wait for each other: so there are several of each.
        lane = torch.arange(buckets.shape[-1], device=buckets.device) % LANES
        cells = (buckets + table.shape[1] * lane).flatten()
        ctx.save_for_backward(cells)
        ctx.n_buckets = table.shape[1]
        rows, biases = table.detach().to(dtype).repeat(1, LANES), table.new_empty((len(table), *buckets.shape), dtype=dtype)
        for row, bias in zip(rows, biases, strict=True):
            torch.index_select(row, 0, cells, out=bias.view(-1))
        return biases

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Sum the gradient by bucket."""
        (cells,), sums = ctx.saved_tensors, grad.new_zeros(len(grad), LANES * ctx.n_buckets, dtype=torch.float32)
        for total, head in zip(sums, grad, strict=True):
            total.scatter_add_(0, cells, head.reshape(-1).float())
        return sums.view(len(grad), LANES, ctx.n_buckets).sum(1), None, None


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
        biases = near.masked_fill(distance < 0, -torch.inf)[:, None]
        if batch.since is not None:
            biases = BucketBias.apply(self.time_bias, batch.since, dtype).add_(biases)
        return [one.transpose(0, 1) for one in biases.split(self.heads)]
