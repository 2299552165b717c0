"""Which windows make up each step, and what is random in it.

Everything here follows from (seed, epoch, step, window) alone, never from a stream of random numbers, so one
worker and many do the same steps, and a resumed run repeats the one that was cut off.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nightloom.models.windows import Windows

TIMELESS_SHARE = 0.05
"""Share of windows whose times are hidden in a step, so that a history without times can be answered too."""


def seed_of(*parts: int) -> int:
    """One 63-bit seed from several numbers (SplitMix64 steps)."""
    state = 0
    for part in parts:
        state = (state + part + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1


def plan_epoch(lengths: NDArray[np.int64], batch: int, random: np.random.Generator) -> list[NDArray[np.int64]]:
    """Batches of windows of like length, in random order.

    Windows are sorted by length, with noise so that neighbours change from epoch to epoch.

    Args:
        lengths: int64 [windows].
        batch: windows in a global batch.
        random: of this epoch.

    Returns:
        Rows of each batch, longest first.
    """
    noisy = lengths * random.uniform(0.8, 1.25, len(lengths))
    order = np.argsort(-noisy, kind="stable")
    batches = [order[first : first + batch] for first in range(0, len(order), batch)]
    return [batches[index] for index in random.permutation(len(batches))]


def dropout_masks(windows: Windows, sites: int, dim: int, p: float, seed: int, device: torch.device, fillers: int = 0) -> Tensor | None:
    """Scaled dropout masks, float32 [sites, tokens, dim]; each window's depend on `seed` and its own id only.

    `fillers` are tokens behind those of the windows (see `Packed`); all of theirs are dropped.

    A random byte decides each cell, so `p` is rounded to 1/256; a draw gives eight of them.
    """
    if p == 0:
        return None
    dropped = max(1, round(p * 256))
    masks = []
    for window, length in zip(windows.ids.tolist(), windows.lengths.tolist(), strict=True):
        cells = sites * length * dim
        draws = torch.empty(-(-cells // 8), dtype=torch.int64, device=device)
        draws.random_(-(2**63), None, generator=torch.Generator(device).manual_seed(seed_of(seed, window)))
        masks.append(draws.view(torch.uint8)[:cells].view(sites, length, dim))
    masks.append(torch.zeros(sites, fillers, dim, dtype=torch.uint8, device=device))
    # 0 below `dropped`, 1 from there on: a comparison would say so too, but at four times the cost.
    return torch.cat(masks, 1).clamp_(dropped - 1, dropped).sub_(dropped - 1).float().mul_(256 / (256 - dropped))


def hidden_items(n_items: int, share: float, seed: int, device: torch.device) -> Tensor | None:
    """Items whose id is hidden in a step (id dropout), bool [n_items]; the same at every worker."""
    if share == 0:
        return None
    return (torch.rand(n_items, generator=torch.Generator().manual_seed(seed)) < share).to(device)


def timeless_windows(windows: Windows, seed: int) -> NDArray[np.bool_]:
    """Windows whose times are hidden in a step, bool [windows]."""
    return np.array([seed_of(seed, window) / 2**63 < TIMELESS_SHARE for window in windows.ids.tolist()], dtype=bool)
