"""What is compared: each arm is one library with one loss, at the same shape, on the same events and cores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ALLOCATOR = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "20000000000"}
"""Settings that made a peer's epoch several times faster on some machines; peers are timed with them and without."""


@dataclass(frozen=True)
class Shape:
    """Shape of every arm's model; `length` is the most events of a history that it reads at once."""

    dim: int = 64
    blocks: int = 2
    heads: int = 2
    length: int = 200


@dataclass(frozen=True, eq=False)  # each is itself alone, so it can be a key
class Arm:
    """One competitor.

    Attributes:
        name: how it is called in tables.
        peer: name of its environment and runner under benchmarks/peers/, None for Nightloom itself.
        options: passed on to the peer's runner; for Nightloom, overrides of the config.
        latest: of Nightloom, train on each user's latest events alone, as many as the length, as RecTools and RePlay do.
    """

    name: str
    peer: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    latest: bool = False

    @property
    def key(self) -> str:
        """The name as a file name, and as `--arms` takes it."""
        return self.name.replace(",", "").replace(" ", "-").lower()


REFERENCE = Arm("Nightloom")
IDS_ALONE = {"model.use_text": False, "model.use_attributes": False, "model.use_time": False}
EQUAL_WORK = Arm("Nightloom, equal work", None, IDS_ALONE | {"training.batch_users": 128}, latest=True)
"""What RecTools' softmax does: it reads ids alone, of the latest events, in batches of 128."""
QUALITY_TARGET = Arm("RecTools softmax", "rectools", {"loss": "softmax"})
ARMS = (
    REFERENCE,
    Arm("Nightloom, ids alone", None, IDS_ALONE),
    Arm("Nightloom, batch 128", None, {"training.batch_users": 128}),
    EQUAL_WORK,
    QUALITY_TARGET,
    Arm("RecTools softmax, batch 32", "rectools", {"loss": "softmax", "batch_size": 32}),
    Arm("RecTools sampled softmax", "rectools", {"loss": "sampled_softmax", "n_negatives": 256}),
    Arm("RePlay", "replay"),
    Arm("RecBole", "recbole", {"train_batch_size": 128}),
)
"""Batch, learning rate and dropout are each library's own defaults (32 or 64 windows in Nightloom's presets, 128 histories in RecTools),
but for the arms that say otherwise and for two more batches: RePlay has no default and gets 32; RecBole's
2,048 examples of length 200 need more memory than the 23 GB of a small machine, so it gets 128."""
