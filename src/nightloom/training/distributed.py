"""The group of workers that train one model: one process, or several under torch.distributed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

FIRST_PAUSE, LONGEST_PAUSE = 0.01, 1.0
"""Seconds between two looks at who is here already; each pause is twice the one before."""


@dataclass(frozen=True)
class World:
    """This worker's place among all.

    Attributes:
        rank: 0 to size - 1; rank 0 writes.
        size: number of workers.
        device: where this worker computes.
        store: what all workers can read and write; None where there is one worker.
        meetings: numbers of the calls of `wait`, the same at every worker.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    store: dist.Store | None = None  # type: ignore[name-defined]  # not in __all__
    meetings: Iterator[int] = field(default_factory=count)

    def sum_(self, values: Tensor) -> Tensor:
        """Sum over the workers, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def agree(self, value: Any) -> Any:
        """Rank 0's value, at every worker; the others wait for it as in `wait`."""
        if self.size == 1:
            return value
        self.wait()
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def wait(self) -> None:
        """Until all workers are here, however long that takes.

        Collectives give up after a time-out (30 minutes with gloo, 10 with NCCL), and rank 0 may work alone for longer. So nobody waits
        in one. A worker that dies is seen by the launcher, which ends those that wait; without the launcher the store is gone.
        """
        if self.store is None:
            return
        meeting, pause = f"meeting_{next(self.meetings)}", FIRST_PAUSE
        here = self.store.add(meeting, 1)
        while here < self.size:
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            here = self.store.add(meeting, 0)

    def gather(self, share: Tensor, sizes: list[int]) -> Tensor:
        """Rows of all workers, one after the other; `sizes` says how many each has."""
        if self.size == 1:
            return share
        longest = max(sizes)
        padded = share.new_zeros(longest, *share.shape[1:])
        padded[: len(share)] = share
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


@contextmanager
def world() -> Iterator[World]:
    """Join the group that torch.distributed.run started, or be alone.

    The store is prefixed by the attempt: after a restart, keys that a killed worker left behind can not
    be taken for answers of the new group.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    on_gpu = torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    device = torch.device("cuda", local) if on_gpu and torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if size == 1:
        yield World(device=device)
        return
    base = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), size, is_master=False)  # type: ignore[attr-defined]  # not in __all__
    store = dist.PrefixStore(f"attempt_{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", base)  # type: ignore[attr-defined]  # not in __all__
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", store=store, rank=rank, world_size=size)
    try:
        yield World(rank, size, device, store)
    finally:
        dist.destroy_process_group()


def ready_world() -> World:
    """This worker's place in a process group that Ray Train has made."""
    from ray.train.torch import get_device

    device = get_device()
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return World(device=device)
    # The group's own store: Ray makes a new one for each group, so keys of one that was lost are not in it.
    store = dist.PrefixStore("nightloom", dist.distributed_c10d._get_default_store())  # type: ignore[attr-defined]  # not in __all__
    return World(dist.get_rank(), dist.get_world_size(), device, store)


def local(tensor: Any) -> Tensor:
    """This worker's part of a tensor that is shared out over the workers, which shares its memory; any other tensor itself."""
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part


class FlatGradients:
    """All gradients of some modules in one buffer, so that one all-reduce sums them.

    Args:
        parameters: what is trained; their `.grad` become views of the buffer.
    """

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = parameters
        first = parameters[0]
        self.flat = torch.zeros(sum(p.numel() for p in parameters), dtype=first.dtype, device=first.device)
        self.zero()

    def zero(self) -> None:
        """Clear the buffer (and tie it to the parameters again, should an optimizer have dropped their gradients)."""
        self.flat.zero_()
        start = 0
        for parameter in self.parameters:
            parameter.grad = self.flat[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()

    def drop(self) -> None:
        """Give the buffer up."""
        self.flat = self.flat[:0].clone()
        for parameter in self.parameters:
            parameter.grad = None
