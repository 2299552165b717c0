"""Which windows make up each step, and what is random in it.

Everything here follows from (seed, epoch, step, window) alone, never from a stream of random numbers. So one
worker and many do the same steps, and a resumed run repeats the one that was cut off.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nightloom.core.ragged import gather
from nightloom.models.sequential.windows import Windows

MASK_ROWS = 2**15
"""Rows of dropout masks that there are."""
FIRST_SEED = 7
"""The default of `training.seed`."""
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

    Windows are sorted by length, with a little noise so that neighbours change from epoch to epoch (more would be paid for in padding).

    Args:
        lengths: int64 [windows].
        batch: windows in a global batch.
        random: of this epoch.

    Returns:
        Rows of each batch, longest first.
    """
    noisy = lengths * random.uniform(0.95, 1.05, len(lengths))
    order = np.argsort(-noisy, kind="stable")
    batches = [order[first : first + batch] for first in range(0, len(order), batch)]
    return [batches[index] for index in random.permutation(len(batches))]


def dropout_masks(
    windows: Windows, sites: int, dim: int, p: float, seed: int, device: torch.device, fillers: int = 0, *, run_seed: int
) -> Tensor | None:
    """Scaled dropout masks, float32 [sites, tokens, dim]; each window's depend on the two seeds and its own id only.

    Drawing them anew in each step took longer than multiplying by them, so rows of masks are drawn once in a run. In each step and at
    each site a window takes a run of them from a place of its own.

    Args:
        windows: a batch.
        sites: places in the network where dropout acts.
        dim: width of a token.
        p: probability of being dropped.
        seed: of the step; it says where each window's masks begin.
        device: where the masks go.
        fillers: tokens behind those of the windows (see `Packed`); all of theirs are dropped.
        run_seed: the run's `training.seed`, by which the rows were drawn.
    """
    if p == 0:
        return None
    starts = np.array([seed_of(seed, window) % MASK_ROWS for window in windows.ids.tolist()], dtype=np.int64)
    first = gather(starts, windows.lengths)
    rows = (first + np.arange(sites)[:, None] * (MASK_ROWS // sites)) % MASK_ROWS
    rows = np.concatenate([rows, np.full((sites, fillers), MASK_ROWS)], 1)
    return mask_rows(dim, p, run_seed, device).index_select(0, torch.from_numpy(rows.ravel()).to(device)).view(sites, -1, dim)


@lru_cache(maxsize=4)
def mask_rows(dim: int, p: float, run_seed: int, device: torch.device) -> Tensor:
    """Rows of scaled dropout masks, float32 [MASK_ROWS + 1, dim], the same at every worker; the last one drops all."""
    # Once all runs of a width had the same rows. Those of the default seed stay what they were, and with them what was measured by it.
    seed = dim if run_seed == FIRST_SEED else seed_of(dim, run_seed)
    kept = torch.rand(MASK_ROWS + 1, dim, generator=torch.Generator().manual_seed(seed)) >= p
    kept[-1] = False
    return (kept.float() / (1 - p)).to(device)


def hidden_items(n_items: int, share: float, seed: int, device: torch.device) -> Tensor | None:
    """Items whose id is hidden in a step (id dropout), bool [n_items]; the same at every worker."""
    if share == 0:
        return None
    return (torch.rand(n_items, generator=torch.Generator().manual_seed(seed)) < share).to(device)


def timeless_windows(windows: Windows, seed: int) -> NDArray[np.bool_]:
    """Windows whose times are hidden in a step, bool [windows]."""
    return np.array([seed_of(seed, window) / 2**63 < TIMELESS_SHARE for window in windows.ids.tolist()], dtype=bool)
