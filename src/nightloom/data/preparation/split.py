"""The splits: one cut for all users, in time or in a random order, and leave-one-out.

They work on events that are sorted by user, then time, then row of the source, and give the two cutoff arrays of `Sequences`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nightloom.core.errors import InputError
from nightloom.core.ragged import offsets_among

IntArray = NDArray[np.int64]


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


def random(offsets: IntArray, order: IntArray, positive: NDArray[np.bool_], validation_share: float, test_share: float) -> Split:
    """One cut for all users in a random order of the events, by share of positive events; as `temporal`, but no cutoff is a time."""
    split = temporal(offsets, order, positive, validation_share, test_share, "random")
    return replace(split, validation_cutoff=None, test_cutoff=None)


def temporal(
    offsets: IntArray, times: IntArray, positive: NDArray[np.bool_], validation_share: float, test_share: float, name: str = "temporal"
) -> Split:
    """One cut in time for all users, placed by share of positive events.

    Events at the time of a cut-off belong to the later side. No training event is at or after the validation cut-off.

    Args:
        offsets: int64 [users + 1].
        times: int64 [events], in any unit, not falling within a user.
        positive: bool [events].
        validation_share: share of positive events, by time, for validation.
        test_share: share of positive events, by time, for the test.
        name: what the split is called in messages.

    Raises:
        InputError: the times are too few or too coarse: some part would have no positive event.
    """
    moments = np.sort(times[positive])
    count = len(moments)
    if count == 0:
        raise InputError(
            "events: no event is positive, so there is nothing to split. Change prepare.positive_events or positive_min_value."
        )
    cuts = count - np.round(np.array([validation_share + test_share, test_share]) * count).astype(np.int64)
    validation_cutoff, test_cutoff = (int(moments[min(cut, count - 1)]) for cut in cuts)
    sizes = np.diff([0, *np.searchsorted(moments, [validation_cutoff, test_cutoff]), count])
    if not sizes.all():
        raise InputError(
            f"events: the {name} split of {count:,} positive events leaves {sizes[0]:,} for training, {sizes[1]:,} for validation and "
            f"{sizes[2]:,} for the test, since too many share one time (or there are too few). Give finer timestamps or more events, "
            "change prepare.validation_share and prepare.test_share, or use evaluation.protocols: [leave_one_out]."
        )
    return cut(offsets, times, validation_cutoff, test_cutoff)


def cut(offsets: IntArray, times: IntArray, validation_cutoff: int, test_cutoff: int) -> Split:
    """One cut in time for all users, at given cut-offs; see `temporal`."""
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
