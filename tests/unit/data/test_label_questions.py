"""Held-out events as questions: what comes with them is strictly earlier, and all of them are asked."""

from __future__ import annotations

import numpy as np

from nightloom.core.sequences import Sequences
from nightloom.data.preparation.label_questions import LabelQuestions


def sequences(times: list[int]) -> Sequences:
    """Two users with four events each, of which the last two are for the test and the one before them for validation."""
    return Sequences(
        np.array([0, 4, 8]),
        np.array([0, 1, 2, 3, 3, 2, 1, 0], dtype=np.int32),
        np.array(times),
        np.zeros(8, dtype=np.int16),
        np.array([1, 0, 1, 0, 1, 1, 0, 0], dtype=bool),
        np.array([1, 5]),
        np.array([2, 6]),
        4,
    )


def test_events_of_one_time_do_not_know_each_other() -> None:
    asked = LabelQuestions.of(sequences([5, 6, 7, 7, 1, 2, 2, 9]), "test")
    assert asked.items.tolist() == [2, 3, 1, 0]
    assert asked.positive.tolist() == [True, False, False, False]
    known = [asked.histories.take(np.array([row])) for row in asked.owner]
    assert [one.items.tolist() for one in known] == [[0, 1], [0, 1], [3], [3, 2, 1]]
    assert [int(one.request_time[0]) for one in known] == [7, 7, 2, 9]


def test_without_times_an_event_knows_those_before_it() -> None:
    asked = LabelQuestions.of(sequences([0] * 8), "test")
    assert [asked.histories.take(np.array([row])).items.tolist() for row in asked.owner] == [[0, 1], [0, 1, 2], [3, 2], [3, 2, 1]]
    assert len(LabelQuestions.of(sequences([0] * 8), "validation")) == 2


def test_a_draw_takes_so_many_at_most() -> None:
    assert len(LabelQuestions.of(sequences([0] * 8), "test", most=3, seed=1)) == 3
