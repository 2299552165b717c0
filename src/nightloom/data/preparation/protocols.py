"""One protocol on the packed events: where its parts end, its file of sequences, and what is asked in its parts. A few users at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nightloom.config import RANDOM
from nightloom.core.arrays import write_arrays
from nightloom.core.errors import InputError
from nightloom.core.ragged import owners
from nightloom.core.sequences import Sequences
from nightloom.core.streaming import DAY, STREAMING, askable, drawn, most_queries
from nightloom.data.preparation.rows import Packed
from nightloom.data.preparation.split import Split, cut, cutoffs, leave_one_out

if TYPE_CHECKING:
    from nightloom.config import PrepareConfig

IntArray = NDArray[np.int64]
Links = tuple[IntArray, IntArray]


def split(protocol: str, packed: Packed, prepare: PrepareConfig) -> Split:
    """Where each user's parts end under a protocol.

    Raises:
        InputError: it can not split these events.
    """
    alone = protocol == "leave_one_out"

    def moments() -> Iterator[IntArray]:
        for _, _, (clock, positive) in packed.blocks("clock", "positive"):
            yield clock[positive]

    in_words = RANDOM if protocol == RANDOM else "temporal"
    found = (0, 0) if alone else cutoffs(moments, prepare.validation_share, prepare.test_share, in_words)
    train_end, validation_end = np.empty((2, len(packed.users)), dtype=np.int64)
    for users, offsets, (clock, positive) in packed.blocks("clock", "positive"):
        one = leave_one_out(offsets, positive) if alone else cut(offsets, clock, *found)
        train_end[users] = one.train_end + packed.offsets[users.start]
        validation_end[users] = one.validation_end + packed.offsets[users.start]
    if alone and (validation_end == packed.offsets[1:]).all():
        raise InputError(
            f"events: none of {len(packed.users):,} users has the three positive events that leave-one-out needs. "
            f"Give more events, or use evaluation.protocols: [streaming], or [{RANDOM}] where the order of events is random."
        )
    return Split(train_end, validation_end, *(() if alone or protocol == RANDOM else found))


def write_sequences(path: Path, packed: Packed, ends: Split, n_items: int, links: Links) -> None:
    """Write the events as `nightloom.core.sequences.Sequences` reads them."""
    arrays = {
        **packed.columns,
        "offsets": packed.offsets,
        "train_end": ends.train_end,
        "validation_end": ends.validation_end,
        "n_items": n_items,
        "link_offsets": links[0],
        "link_users": links[1],
    }
    write_arrays(path, {name: arrays[name] for name in Sequences.__dataclass_fields__})


def trained_until(packed: Packed, ends: Split) -> int:
    """The clock of the last event before the test."""
    latest = []
    for users, offsets, (clock,) in packed.blocks("clock"):
        until = ends.validation_end[users] - packed.offsets[users.start]
        latest.append(clock[np.arange(offsets[-1]) < until[owners(offsets)]].max(initial=np.iinfo(np.int64).min))
    return int(max(latest))


def parts(protocol: str, packed: Packed, ends: Split, n_items: int, *, exclude_seen: bool) -> dict[str, int]:
    """Positive events of each part, and users with a query in validation and test."""
    positive = dict.fromkeys(("train", "validation", "test"), 0)
    users: dict[str, list[IntArray]] = {"validation": [], "test": []}
    moments = _has_moments(packed)
    for span, sequences in _sequences(packed, ends, n_items):
        owner, place = owners(sequences.offsets), np.arange(len(sequences.items))
        part = (place >= sequences.train_end[owner]).astype(np.int8) + (place >= sequences.validation_end[owner])
        for name, count in zip(positive, np.bincount(part[sequences.positive], minlength=3).tolist(), strict=True):
            positive[name] += count
        for name, found in users.items():
            if protocol == STREAMING:
                asked = owner[askable(sequences, name, exclude_seen=exclude_seen, moments=moments)]
            else:
                asked = sequences.queries(name, exclude_seen=exclude_seen).users
            found.append(asked + span.start)
    asked_of = {name: np.concatenate(found) for name, found in users.items()}
    if protocol == STREAMING:
        asked_of = {name: asked[drawn(asked, most_queries(n_items))] for name, asked in asked_of.items()}
    return positive | {
        "validation_users": len(np.unique(asked_of["validation"])),
        "test_users": len(np.unique(asked_of["test"])),
        "test_queries": len(asked_of["test"]),
    }


def _sequences(packed: Packed, ends: Split, n_items: int) -> Iterator[tuple[slice, Sequences]]:
    """Which users, and their sequences without links."""
    for users, offsets, (items, times, event_types, positive, seen) in packed.blocks("items", "times", "event_types", "positive", "seen"):
        train_end, validation_end = (end[users] - packed.offsets[users.start] for end in (ends.train_end, ends.validation_end))
        yield users, Sequences(offsets, items, times, event_types, positive, train_end, validation_end, n_items, seen=seen)


def _has_moments(packed: Packed) -> bool:
    """What `nightloom.core.streaming.has_moments` says of all times."""
    some, low, high = False, DAY, -1
    for _, _, (times,) in packed.blocks("times"):
        some |= bool(times.any())
        low, high = min(low, int((times % DAY).min())), max(high, int((times % DAY).max()))
    return some and low < high
