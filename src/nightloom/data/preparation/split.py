"""The splits: one cut for all users, in time or in a random order, and leave-one-out.

They work on events that are sorted by user, then time, then row of the source, and give the two cutoff arrays of `Sequences`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nightloom.core.errors import InputError
from nightloom.core.ragged import offsets_among

IntArray = NDArray[np.int64]

BINS = 1 << 16
"""Parts into which a range of times is cut at once."""


@dataclass(frozen=True)
class Split:
    """Where each user's training and validation parts end.

    Attributes:
        train_end: int64 [users], absolute positions in the sorted events.
        validation_end: int64 [users], absolute positions.
        validation_cutoff: time at which the validation part begins for everyone; None where each user has an own cutoff.
        test_cutoff: time at which the test part begins for everyone; likewise.
    """

    train_end: IntArray
    validation_end: IntArray
    validation_cutoff: int | None = None
    test_cutoff: int | None = None


def cutoffs(
    moments: Callable[[], Iterable[IntArray]], validation_share: float, test_share: float, name: str = "temporal"
) -> tuple[int, int]:
    """Where one cut in time for all users lies, by share of positive events: the validation and the test cut-off.

    Events at the time of a cut-off belong to the later side. No training event is at or after the validation cut-off.

    Args:
        moments: gives the times of the positive events in any unit and order, some at a time; it is asked several times.
        validation_share: share of positive events, by time, for validation.
        test_share: share of positive events, by time, for the test.
        name: what the split is called in messages.

    Raises:
        InputError: the times are too few or too coarse: some part would have no positive event.
    """
    count = sum(map(len, moments()))
    if count == 0:
        raise InputError(
            "events: no event is positive, so there is nothing to split. Change prepare.positive_events or positive_min_value."
        )
    cuts = count - np.round(np.array([validation_share + test_share, test_share]) * count).astype(np.int64)
    found = [ranked(moments, min(int(cut), count - 1)) for cut in cuts]
    before = [sum(int(np.count_nonzero(some < cut)) for some in moments()) for cut in found]
    sizes = np.diff([0, *before, count])
    if not sizes.all():
        raise InputError(
            f"events: the {name} split of {count:,} positive events leaves {sizes[0]:,} for training, {sizes[1]:,} for validation and "
            f"{sizes[2]:,} for the test, since too many share one time (or there are too few). Give finer timestamps or more events, "
            "change prepare.validation_share and prepare.test_share, or use evaluation.protocols: [leave_one_out]."
        )
    return found[0], found[1]


def ranked(values: Callable[[], Iterable[IntArray]], rank: int) -> int:
    """The value of a rank (0: the least) among integers that come some at a time: the range it lies in is narrowed until it is one value.

    Args:
        values: gives the integers in any order; it is asked several times.
        rank: below their number.
    """
    low = min(int(some.min()) for some in values() if len(some))
    high = max(int(some.max()) for some in values() if len(some))
    while low < high:
        width = (high - low) // BINS + 1
        counts = np.zeros(BINS, dtype=np.int64)
        for some in values():
            inside = some[(some >= low) & (some <= high)]
            counts += np.bincount((inside - low) // width, minlength=BINS)
        through = np.cumsum(counts)
        place = int(np.searchsorted(through, rank, side="right"))
        rank -= int(through[place] - counts[place])
        low, high = low + place * width, min(low + (place + 1) * width - 1, high)
    return low


def cut(offsets: IntArray, times: IntArray, validation_cutoff: int, test_cutoff: int) -> Split:
    """One cut in time for all users.

    Args:
        offsets: int64 [users + 1].
        times: int64 [events], in any unit, not falling within a user.
        validation_cutoff: see `cutoffs`.
        test_cutoff: likewise.
    """
    return Split(
        train_end=offsets[:-1] + _count(times < validation_cutoff, offsets),
        validation_end=offsets[:-1] + _count(times < test_cutoff, offsets),
        validation_cutoff=validation_cutoff,
        test_cutoff=test_cutoff,
    )


def leave_one_out(offsets: IntArray, positive: NDArray[np.bool_]) -> Split:
    """Each user's last positive event is the test, the one before it the validation.

    Users with fewer than three positive events stay whole in training.

    Args:
        offsets: int64 [users + 1].
        positive: bool [events].
    """
    positions = np.flatnonzero(positive)
    among = offsets_among(offsets, positive)
    through = among[1:]  # positive events up to each user's end
    eligible = np.diff(among) >= 3
    train_end, validation_end = offsets[1:].copy(), offsets[1:].copy()
    train_end[eligible] = positions[through[eligible] - 2]
    validation_end[eligible] = positions[through[eligible] - 1]
    return Split(train_end, validation_end)


def _count(flags: NDArray[np.bool_], offsets: IntArray) -> IntArray:
    """True flags of each user, int64 [users]."""
    return np.diff(offsets_among(offsets, flags))
