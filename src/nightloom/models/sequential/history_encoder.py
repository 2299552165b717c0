"""A causal transformer over packed histories, with a learned sense of time.

Pre-norm blocks with a gated attention output and SwiGLU. Time enters twice. An embedding of the gap between its
event and the next request is added to each token. Attention has a learned bias per head on the time between the request
and each past event (HSTU, Zhai et al. 2024), beside one on relative position. Linear layers run on real
tokens only; attention alone pads, to the longest window of the batch. Both counts are rounded up to few numbers, since the CPU's
library compiles a kernel for every shape that it meets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from nightloom.core.ragged import owners, places
from nightloom.models.sequential.attend import attend
from nightloom.models.sequential.attention import POSITION_BUCKETS, TIME_BUCKETS, Span, bias_table, spans, time_bucket
from nightloom.models.sequential.windows import BOS, Windows

if TYPE_CHECKING:
    from nightloom.config import ModelConfig

LONGEST_GAP = 2 - 2**31
"""Seconds before the latest request of a batch, 68 years: what lies farther back counts as that far."""
CHUNK = 4096
"""Tokens that a CPU takes through linear layers at once: few enough for its cache."""
STEP = 8
"""Tokens of a batch and of its longest window are rounded up to a multiple of this at least."""


def few_shapes(n: int) -> int:
    """A count rounded up to one of few: multiples of `STEP`, and from 128 on eight to a doubling."""
    step = max(STEP, 1 << max(n.bit_length() - 4, 0))
    return -(-n // step) * step


@dataclass(frozen=True)
class Packed:
    """A batch of windows on the device: flat tokens, and where each stands in the padded batch.

    The tokens of the windows come first. A few fillers round up their number: they look like BOS and stand in free places of the
    padded batch, behind the ends of windows, which no real token attends to.

    Attributes:
        items: int64 [tokens], -1 for BOS.
        event_types: int64 [tokens].
        gap: int32 [tokens], bucket of the time from the token's event to the next request.
        place: int64 [tokens], `window * longest + position`.
        inside: int64 [windows * longest], the token at each place; the number of tokens where there is none.
        spans: what queries may see, see `attention.spans`.
        windows: number of windows.
        longest: tokens of the longest window, rounded up.
    """

    items: Tensor
    event_types: Tensor
    gap: Tensor
    place: Tensor
    inside: Tensor
    spans: list[Span]
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
        window = owners(windows.offsets)
        cell = window * longest + places(windows.offsets)
        free = np.flatnonzero((np.arange(longest) >= lengths[:, None]).ravel())
        filler = free[: few_shapes(len(cell)) - len(cell)]

        def on_device(values: NDArray[Any], fill: float) -> Tensor:
            return torch.from_numpy(np.concatenate([values, np.full(len(filler), fill, values.dtype)])).to(device)

        items, place = on_device(windows.items, BOS), torch.from_numpy(np.concatenate([cell, filler])).to(device)
        gap, clocks = torch.zeros_like(items), None
        if use_time:
            # int32 holds gaps of up to 68 years, and is several times faster here than int64.
            now = int(windows.request_times.max(initial=0))
            times, asked = (
                on_device(np.maximum(one - now, LONGEST_GAP).astype(np.int32), 0) for one in (windows.times, windows.request_times)
            )
            blind = items == BOS
            if timeless is not None:
                blind = blind | on_device(timeless[window], True)
            # No event is later than a request that reads it, and those of unknown time are later than all.
            asked, times = torch.maximum(asked, times), times.masked_fill_(blind, 1)
            gap = time_bucket(asked - times)

            def padded(values: Tensor, fill: int) -> Tensor:
                return values.new_full((n * longest,), fill).index_copy_(0, place, values).view(n, longest)

            clocks = padded(times, 1), padded(asked, 0)
        inside = torch.full((n * longest,), len(items), device=device).index_copy_(0, place, torch.arange(len(items), device=device))
        return cls(items, on_device(windows.event_types, 0), gap, place, inside, spans(longest, clocks, device), n, longest)


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

    def forward(self, x: Tensor, batch: Packed, biases: Tensor, keep: Tensor | None, at: Tensor | None = None) -> Tensor:
        """Tokens [tokens, dim] -> the same; biases: float32 [heads, cells]; keep: scaled dropout masks [2, tokens, dim].

        With `at`, int64 [m], only these tokens come out, [m, dim], and little is computed for the others; there are no masks then.
        """
        if at is not None:
            return self._only(x, batch, biases, at)
        some = CHUNK if x.device.type == "cpu" else len(x)
        qkv, gates = zip(*(self._read(part) for part in x.split(some)), strict=True)
        attended = attend(torch.cat(qkv), biases, batch.place, batch.inside, batch.spans)
        masks = [None] * len(gates) if keep is None else keep.split(some, 1)
        parts = zip(x.split(some), attended.split(some), gates, masks, strict=True)
        return torch.cat([self._write(*part) for part in parts])

    def _only(self, x: Tensor, batch: Packed, biases: Tensor, at: Tensor) -> Tensor:
        """`forward` of some tokens. Of the others only keys and values are needed, and queries of spans that hold none are left out."""
        some, found = CHUNK if x.device.type == "cpu" else len(x), batch.spans
        if x.device.type == "cpu" and int((batch.place[at] % batch.longest).min()) >= found[-1].first:
            found = found[-1:]
        qkv = torch.cat([self.qkv(cast(self.attention_norm(part))) for part in x.split(some)])
        attended = attend(qkv, biases, batch.place, batch.inside, found).index_select(0, at)
        parts = zip(x.index_select(0, at).split(some), attended.split(some), strict=True)
        return torch.cat([self._write(part, seen, torch.sigmoid(self.gate(cast(self.attention_norm(part)))), None) for part, seen in parts])

    def _read(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Queries, keys and values of some tokens, and the gate of the attention's output."""
        normed = cast(self.attention_norm(x))
        return self.qkv(normed), torch.sigmoid(self.gate(normed))

    def _write(self, x: Tensor, attended: Tensor, gate: Tensor, keep: Tensor | None) -> Tensor:
        """Some tokens after the attention's residual and SwiGLU's."""
        y = self.out(attended * gate)
        x = x + (y if keep is None else y * keep[0])
        normed = cast(self.ffn_norm(x))
        y = self.down(F.silu(self.up_gate(normed)) * self.up(normed))
        return x + (y if keep is None else y * keep[1])


def cast(x: Tensor) -> Tensor:
    """What several linear layers read, in their precision: autocast would make a copy for each."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


class HistoryEncoder(nn.Module):
    """User vectors from histories: what the user wants next, at each token.

    Args:
        config: widths and depth.
        n_event_types: event names; their embedding is left out when there is only one.
        has_time: whether the data have times.
    """

    def __init__(self, config: ModelConfig, n_event_types: int, has_time: bool) -> None:
        super().__init__()
        dim, self.heads = config.dim, config.heads
        self.use_time = config.use_time and has_time
        self.bos = nn.Parameter(torch.randn(dim))
        if n_event_types > 1:
            self.event_types = nn.Embedding(n_event_types, dim)
            nn.init.normal_(self.event_types.weight, std=0.3)
        self.has_event_types = n_event_types > 1
        self.blocks = nn.ModuleList(Block(dim, config.heads, config.blocks) for _ in range(config.blocks))
        self.position_bias = nn.Parameter(torch.zeros(config.blocks * config.heads, POSITION_BUCKETS))
        if self.use_time:
            self.gaps = nn.Embedding(TIME_BUCKETS, dim)
            nn.init.normal_(self.gaps.weight, std=0.3)
            self.time_bias = nn.Parameter(torch.zeros(config.blocks * config.heads, TIME_BUCKETS))
        self.out_norm = nn.LayerNorm(dim)
        self.sites = 1 + 2 * config.blocks

    def tokens(self, items: Tensor, rows: Tensor) -> Tensor:
        """What a batch's tokens are read as, float32 [tokens, dim].

        Args:
            items: float32 [n, dim], item vectors.
            rows: int64 [tokens], the row of `items` for each token; -1 for BOS.
        """
        if torch.is_grad_enabled():
            return torch.cat([items, self.bos[None]]).index_select(0, rows % (len(items) + 1))
        found = items.index_select(0, rows.clamp(min=0))  # the same without a copy of the whole catalogue
        found[rows < 0] = self.bos.to(found.dtype)
        return found

    def forward(self, x: Tensor, batch: Packed, keep: Tensor | None = None, at: Tensor | None = None) -> Tensor:
        """Encode a batch.

        Args:
            x: float32 [tokens, dim], what `tokens` gave.
            batch: where the tokens stand.
            keep: scaled dropout masks [sites, tokens, dim], or None for no dropout.
            at: int64 [m], the tokens whose user vectors are wanted, without dropout; None: all.

        Returns:
            float32 [tokens, dim], or [m, dim].
        """
        if self.use_time:
            x = x + self.gaps(batch.gap)
        if self.has_event_types:
            x = x + self.event_types(batch.event_types)
        if keep is not None:
            x = x * keep[0]
        biases = bias_table(self.position_bias, self.time_bias if self.use_time else None).split(self.heads)
        for index, block in enumerate(self.blocks):
            wanted = at if index == len(self.blocks) - 1 else None
            x = block(x, batch, biases[index], None if keep is None else keep[1 + 2 * index : 3 + 2 * index], wanted)
        return self.out_norm(x)
