"""Whitened vectors of a large catalogue, made once and mapped by all workers of a machine; and memory that goes back to it."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nightloom.encoders.whitening import ROWS
from nightloom.models.sequential.content_fusion import ItemContent, ItemFusion
from nightloom.training.distributed import World

BLOCK = 1 << 14
"""Items that are whitened at once."""
HALF = float(np.finfo(np.float16).max)


def whitened(fusion: ItemFusion, content: ItemContent, world: World, folder: Path, forget: Callable[[], None]) -> ItemContent:
    """The items with whitened vectors; of more than `ROWS` items in half precision, in memory that workers share.

    Rank 0 writes the file, the others wait, and it has no name any more once all have mapped it. So a kill leaves at most a file that the
    next start of the run writes over.

    Args:
        fusion: with a fitted whitening.
        content: the catalogue.
        world: this worker among all.
        folder: of the run, which all workers see.
        forget: gives the pages of the given vectors that were read back.
    """
    if len(content) <= ROWS or world.device.type != "cpu":
        return fusion.whitened(content)
    found = {}
    used = {"text": (fusion.use_text, "whiten"), "image": (fusion.use_images, "whiten_image")}
    for name, (_, layer) in ((name, one) for name, one in used.items() if one[0]):
        path = folder / f"white_{name}.npy"
        if world.rank == 0:
            shape = (len(content), getattr(fusion, layer).width)
            out = np.lib.format.open_memmap(path, "w+", np.float16, shape)
            for rows in torch.arange(len(content)).split(BLOCK):
                some = getattr(fusion.whitened(content.take(rows)), name)
                out[int(rows[0]) : int(rows[-1]) + 1] = some.clamp(-HALF, HALF).numpy()
                forget()
            out.flush()
            del out
        world.wait()
        found[name] = torch.from_numpy(np.load(path, mmap_mode="c"))
        world.wait()
        if world.rank == 0:
            path.unlink()
    return replace(content, **found)


def halved(vectors: Tensor, forget: Callable[[], None]) -> Tensor:
    """Vectors in half precision, made some rows at a time; `forget` as in `whitened`."""
    found = torch.empty(vectors.shape, dtype=torch.float16)
    for rows in torch.arange(len(vectors)).split(BLOCK):
        found[rows] = vectors[rows].half()
        forget()
    return found


def give_back() -> None:
    """Hand memory that is free back to the machine, where the C library keeps it (see `launch.worker_settings`)."""
    if sys.platform.startswith("linux"):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # not everywhere
        if trim is not None:
            trim(0)
