from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from nightloom.core.errors import InputError
from nightloom.data.preparation.split import Split, cut, cutoffs, leave_one_out, ranked

Log = tuple[np.ndarray, np.ndarray, np.ndarray]


@st.composite
def logs(draw: st.DrawFn) -> Log:
    """Sorted events of some users: offsets, times, positive."""
    users = draw(st.lists(st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=12), min_size=1, max_size=8))
    rows = [event for user in users for event in sorted(user, key=lambda event: event[0])]
    offsets = np.cumsum([0, *(len(user) for user in users)])
    return offsets, np.array([time for time, _ in rows], dtype=np.int64), np.array([flag for _, flag in rows], dtype=bool)


def temporal(offsets: np.ndarray, times: np.ndarray, positive: np.ndarray, validation_share: float, test_share: float) -> Split:
    """Cut where the shares say, with the moments given in two parts."""
    moments = times[positive]
    return cut(offsets, times, *cutoffs(lambda: [moments[::2], moments[1::2]], validation_share, test_share))


@given(st.lists(st.integers(-(2**53), 2**53) | st.integers(0, 5), min_size=1, max_size=30), st.data())
def test_a_rank_is_found_without_sorting(values: list[int], data: st.DataObject) -> None:
    rank = data.draw(st.integers(0, len(values) - 1))
    assert ranked(lambda: [np.array(values[:3]), np.array(values[3:], dtype=np.int64)], rank) == sorted(values)[rank]


def parts(offsets: np.ndarray, split: Split) -> np.ndarray:
    """0 train, 1 validation, 2 test for each event."""
    lengths = np.diff(offsets)
    position = np.arange(offsets[-1])
    return (position >= np.repeat(split.train_end, lengths)).astype(int) + (position >= np.repeat(split.validation_end, lengths))


@given(logs(), st.floats(0.05, 0.4), st.floats(0.05, 0.4))
def test_temporal_has_no_event_of_the_future_in_training(log: Log, validation_share: float, test_share: float) -> None:
    offsets, times, positive = log
    try:
        split = temporal(offsets, times, positive, validation_share, test_share)
    except InputError:
        reject()  # too few or too coarse times: refused, which the tests below pin
    part = parts(offsets, split)
    assert split.validation_cutoff is not None
    assert split.test_cutoff is not None
    assert (times[part == 0] < split.validation_cutoff).all()
    assert ((times[part == 1] >= split.validation_cutoff) & (times[part == 1] < split.test_cutoff)).all()
    assert (times[part == 2] >= split.test_cutoff).all()
    assert all((positive & (part == one)).any() for one in range(3))
    assert (offsets[:-1] <= split.train_end).all()
    assert (split.train_end <= split.validation_end).all()
    assert (split.validation_end <= offsets[1:]).all()


def test_temporal_shares_count_positive_events() -> None:
    offsets, times, positive = np.array([0, 100, 200]), np.tile(np.arange(100), 2), np.repeat([True, False], 100)
    part = parts(offsets, temporal(offsets, times, positive, 0.1, 0.2))
    assert np.bincount(part[positive]).tolist() == [70, 10, 20]
    assert np.bincount(part[~positive]).tolist() == [70, 10, 20]


def test_temporal_puts_ties_on_the_later_side() -> None:
    offsets, times = np.array([0, 10]), np.array([0, 1, 2, 3, 6, 6, 6, 6, 8, 9])
    split = temporal(offsets, times, np.ones(10, bool), 0.3, 0.2)
    assert (split.train_end[0], split.validation_end[0]) == (4, 8)


@pytest.mark.parametrize("times", [[5] * 10, [0, *[9] * 9]])
def test_temporal_refuses_times_that_are_too_coarse(times: list[int]) -> None:
    with pytest.raises(InputError, match=r"for training, .* for validation .*leave_one_out"):
        temporal(np.array([0, 10]), np.array(times), np.ones(10, bool), 0.1, 0.2)


@given(logs())
def test_leave_one_out_holds_out_the_last_two_positives(log: Log) -> None:
    offsets, _, positive = log
    part = parts(offsets, leave_one_out(offsets, positive))
    for user, (start, stop) in enumerate(pairwise(offsets)):
        own = part[start:stop][positive[start:stop]]
        assert (np.diff(part[start:stop]) >= 0).all(), user
        if len(own) >= 3:
            assert own.tolist() == [0] * (len(own) - 2) + [1, 2]
        else:
            assert (part[start:stop] == 0).all()
