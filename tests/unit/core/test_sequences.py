from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightloom.core.sequences import Histories, Sequences


@st.composite
def sequences(draw: st.DrawFn) -> Sequences:
    lengths = draw(st.lists(st.integers(0, 8), min_size=1, max_size=6))
    total = sum(lengths)
    offsets = np.cumsum([0, *lengths])
    cutoffs = [sorted(draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in lengths]
    return Sequences(
        offsets,
        np.array(draw(st.lists(st.integers(0, 4), min_size=total, max_size=total)), dtype=np.int32),
        np.arange(total, dtype=np.int64) * 10 + 10,
        np.zeros(total, dtype=np.int16),
        np.array(draw(st.lists(st.booleans(), min_size=total, max_size=total)), dtype=bool),
        offsets[:-1] + [low for low, _ in cutoffs],
        offsets[:-1] + [high for _, high in cutoffs],
        n_items=5,
    )


@given(sequences(), st.sampled_from(["validation", "test"]), st.booleans())
def test_queries_agree_with_a_plain_loop(made: Sequences, part: str, exclude_seen: bool) -> None:
    expected = []
    for user in range(made.n_users):
        start, stop = (
            (made.train_end[user], made.validation_end[user])
            if part == "validation"
            else (made.validation_end[user], made.offsets[user + 1])
        )
        history = made.items[made.offsets[user] : start].tolist()
        held = list(dict.fromkeys(made.items[p].item() for p in range(start, stop) if made.positive[p]))
        held = [item for item in held if not (exclude_seen and item in history)]
        if held:
            expected.append((user, history, held, made.times[start].item()))
    queries = made.queries(part, exclude_seen=exclude_seen)
    histories = queries.histories
    found = [
        (
            int(queries.users[i]),
            histories.items[histories.offsets[i] : histories.offsets[i + 1]].tolist(),
            queries.targets[queries.target_offsets[i] : queries.target_offsets[i + 1]].tolist(),
            int(histories.request_time[i]),
        )
        for i in range(len(queries))
    ]
    assert found == expected
    assert queries.targets.dtype == np.int32
    assert queries.target_offsets[-1] == len(queries.targets)


@given(sequences())
def test_train_and_queries_part_the_events(made: Sequences) -> None:
    train, refit = made.train(), made.train(with_validation=True)
    assert train.lengths.tolist() == (made.train_end - made.offsets[:-1]).tolist()
    assert refit.lengths.tolist() == (made.validation_end - made.offsets[:-1]).tolist()


def test_read_back_equal(tmp_path: Path) -> None:
    made = Sequences(*(np.arange(3) for _ in range(4)), np.ones(3, bool), np.arange(2), np.arange(2), n_items=9)
    made.save(tmp_path / "s.npz")
    back = Sequences.load(tmp_path / "s.npz")
    assert back.n_items == 9
    for name in ("offsets", "items", "times", "event_types", "positive", "train_end", "validation_end"):
        np.testing.assert_array_equal(getattr(back, name), getattr(made, name))


@pytest.mark.parametrize("rows", [np.array([2, 0]), slice(1, 3), np.array([False, True, True])])
def test_take_gives_rows_in_the_asked_order(rows: np.ndarray | slice) -> None:
    lists = [[1, 2], [], [3]]
    taken = Histories.of_items(lists).take(rows)
    found = [taken.items[taken.offsets[i] : taken.offsets[i + 1]].tolist() for i in range(len(taken))]
    assert found == [lists[i] for i in np.arange(3)[rows]]
