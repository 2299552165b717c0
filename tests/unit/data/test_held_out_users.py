"""Who is held out of a search, and what they are asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nightloom.core.sequences import Sequences
from nightloom.data.subsets.held_out_users import LATEST, Search


@pytest.fixture
def ten() -> Sequences:
    """User u has had items 10 u to 10 u + 5; the fourth and fifth are for validation, the last for the test."""
    offsets, items = np.arange(0, 61, 6), (10 * np.arange(10)[:, None] + np.arange(6)).ravel().astype(np.int32)
    times = np.arange(60, dtype=np.int64) + 1000
    return Sequences(offsets, items, times, np.zeros(60, np.int16), np.ones(60, bool), offsets[1:] - 3, offsets[1:] - 1, 100)


def of_whom(sequences: Sequences) -> set[int]:
    return {int(item) // 10 for item in sequences.items}


def test_a_fifth_is_held_out_by_the_seed(ten: Sequences) -> None:
    drawn = [Search.of(ten, seed, alone=True) for seed in (3, 3, 4)]
    for one in drawn:
        assert len(of_whom(one.held_out)) == 2
        assert of_whom(one.learned) == set(range(10)) - of_whom(one.held_out)
    assert of_whom(drawn[0].held_out) == of_whom(drawn[1].held_out) != of_whom(drawn[2].held_out)


@pytest.mark.parametrize(("alone", "steps"), [(True, [1, 2, 3, 4]), (False, [3, 4])])
def test_each_event_is_asked_about_with_all_before_it(ten: Sequences, alone: bool, steps: list[int]) -> None:
    """With own cutoffs all but the first and the test; under one cut in time what lies between the cutoffs."""
    search = Search.of(ten, 7, alone=alone)
    asked, expected = search.questions(exclude_seen=True), [10 * user + step for user in sorted(of_whom(search.held_out)) for step in steps]
    assert asked.targets.tolist() == expected
    assert asked.target_offsets.tolist() == list(range(len(expected) + 1))
    assert asked.histories.lengths.tolist() == steps * 2
    for row, item in enumerate(expected):
        assert asked.histories.take(np.array([row])).items.tolist() == list(range(item // 10 * 10, item))
        assert asked.histories.request_time[row] == ten.times[ten.items == item]


def test_only_the_latest_events_are_asked_about_and_none_that_would_not_be_shown() -> None:
    items = np.concatenate([np.arange(60), [3, 60], np.arange(5)]).astype(np.int32)  # one who comes back to item 3, and one more
    offsets = np.array([0, 62, 67])
    known = (np.arange(67), np.zeros(67, np.int16), items != 50)
    made = Sequences(offsets, items, *known, offsets[:-1] + 1, offsets[1:] - 1, 100)
    asked = Search(made, made).questions(exclude_seen=True)
    assert asked.targets[asked.users == 0].tolist() == [*range(19, 50), *range(51, 60)]
    assert (asked.users == 0).sum() == LATEST
    assert asked.targets[asked.users == 1].tolist() == [1, 2, 3]
    again = Search(made, made).questions(exclude_seen=False)
    assert again.targets[again.users == 0].tolist() == [*range(20, 50), *range(51, 60), 3]


def test_what_is_written_is_read_back(tmp_path: Path, ten: Sequences) -> None:
    assert Search.load(tmp_path, "leave_one_out") is None
    search = Search.of(ten, 7, alone=True)
    search.save(tmp_path, "leave_one_out")
    back = Search.load(tmp_path, "leave_one_out")
    assert back is not None
    for name in ("learned", "held_out"):
        np.testing.assert_array_equal(getattr(back, name).items, getattr(search, name).items)
    np.testing.assert_array_equal(back.held_out.train_end, search.held_out.train_end)
