from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightloom.core.sequences import Histories, Sequences
from nightloom.data.preparation.split import leave_one_out
from nightloom.models.heads.item_counters import DAY, NEVER, SPAN, ItemCounters
from nightloom.models.heads.reranker import describe

N_ITEMS = 4
event = st.tuples(st.integers(0, N_ITEMS - 1), st.integers(0, 20), st.booleans())


def known(events: list[tuple[int, int, bool]]) -> Histories:
    """One history with an event on an item at noon of some day, positive or not."""
    items, days, positive = zip(*events, strict=True) if events else ((), (), ())
    return Histories(
        np.array([0, len(events)]),
        np.array(items, dtype=np.int32),
        1_000_000 + np.array(days, dtype=np.int64) * DAY,
        np.zeros(len(events), dtype=np.int16),
        np.array(positive, dtype=bool),
        np.zeros(1, dtype=np.int64),
    )


@settings(deadline=None)
@given(st.lists(event, max_size=30), st.integers(0, N_ITEMS - 1), st.integers(0, 25), st.sampled_from([None, 5]))
def test_counters_say_what_counting_by_hand_says(events: list[tuple[int, int, bool]], item: int, day: int, days: int | None) -> None:
    good = [(one, when) for one, when, positive in events if positive]
    latest = max((when for _, when in good), default=0)
    day = max(day, latest - 5) if days else day  # where old events are only summed up, questions come after them
    item_counters = ItemCounters.of(known(events), N_ITEMS, days)
    asked = np.array([1_000_000 + day * DAY + 1])
    mine = [when for one, when in good if one == item and when <= day]
    assert item_counters.until(np.array([item]), asked) == len(mine)
    assert item_counters.last(np.array([item]), asked) == (1_000_000 + max(mine) * DAY if mine else NEVER)
    oldest = latest - 5 if days else -1
    window = [when for when in mine if when > day - 3 and when >= oldest]
    assert item_counters.within(np.array([item]), asked, 3) == len(window)
    assert item_counters.all_within(asked, 3) == sum(day - 3 < when <= day and when >= oldest for _, when in good)


@settings(deadline=None)
@given(st.lists(event, max_size=20), st.lists(event, max_size=20), st.integers(0, 20))
def test_what_comes_later_changes_no_counter(events: list[tuple[int, int, bool]], others: list[tuple[int, int, bool]], day: int) -> None:
    asked = np.full((1, N_ITEMS), 1_000_000 + day * DAY + 1)
    items = np.arange(N_ITEMS)[None, :]
    later = [(one, when + day + 1, positive) for one, when, positive in others]
    before, after = ItemCounters.of(known(events), N_ITEMS), ItemCounters.of(known(events + later), N_ITEMS)
    for read in (ItemCounters.until, ItemCounters.last):
        np.testing.assert_array_equal(read(before, items, asked), read(after, items, asked))
    np.testing.assert_array_equal(before.within(items, asked, 7), after.within(items, asked, 7))
    np.testing.assert_array_equal(before.all_within(asked[0], 7), after.all_within(asked[0], 7))


@settings(deadline=None)
@given(st.lists(event, max_size=30), st.integers(0, 25), st.sampled_from([None, 1, 5]))
def test_no_event_of_the_future_is_counted_though_old_ones_are_only_summed_up(
    events: list[tuple[int, int, bool]], day: int, days: int | None
) -> None:
    item_counters = ItemCounters.of(known(events), N_ITEMS, days)
    asked = np.full(N_ITEMS, 1_000_000 + day * DAY)
    past = [[when for one, when, positive in events if positive and one == item and when < day] for item in range(N_ITEMS)]
    counted, last = item_counters.until(np.arange(N_ITEMS), asked).tolist(), item_counters.last(np.arange(N_ITEMS), asked).tolist()
    for item, times in enumerate(past):
        assert bool(times) <= counted[item] <= len(times)  # the first event of an item is never forgotten
        assert (last[item] == NEVER) == (not times)
        assert last[item] == NEVER or (last[item] - 1_000_000) // DAY in times
    if days is None or day > max((when for _, when, positive in events if positive), default=0):
        assert counted == [len(times) for times in past]
        assert last == [1_000_000 + max(times) * DAY if times else NEVER for times in past]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(event, min_size=3, max_size=8), min_size=1, max_size=5), st.integers(0, 99))
def test_under_leave_one_out_a_query_reads_what_the_events_before_it_alone_give(
    people: list[list[tuple[int, int, bool]]], seed: int
) -> None:
    events = [one for person in people for one in sorted(person, key=lambda one: one[1])]
    offsets = np.cumsum([0, *map(len, people)]).astype(np.int64)
    log = known(events)
    split = leave_one_out(offsets, log.positive)
    ends = (split.train_end, split.validation_end)
    sequences = Sequences(offsets, log.items, log.times, log.event_types, log.positive, *ends, N_ITEMS)
    random = np.random.default_rng(seed)
    for part, learned in (("validation", sequences.train()), ("test", sequences.train(with_validation=True))):
        asked = sequences.queries(part, exclude_seen=False)
        scores = [np.zeros((1, N_ITEMS), dtype=np.float32)]
        for row, when in enumerate(asked.histories.request_time):
            query = asked.histories.take(np.array([row]))
            earlier = learned.times < when
            later = random.permutation(np.flatnonzero(~earlier))
            changed = np.concatenate([np.flatnonzero(earlier), later, later])  # each in another place, and twice
            others = Histories(
                np.array([0, len(changed)]),
                learned.items[changed],
                learned.times[changed],
                learned.event_types[changed],
                learned.positive[changed],
                np.zeros(1, dtype=np.int64),
            )
            read = [describe(scores, np.arange(N_ITEMS)[None], query, ItemCounters.of(one, N_ITEMS)) for one in (learned, others)]
            np.testing.assert_array_equal(*read)


@pytest.mark.parametrize("days", [None, 5])
def test_another_catalogue_and_the_disk_keep_the_counters(tmp_path: Path, days: int | None) -> None:
    random = np.random.default_rng(0)
    item_counters = ItemCounters.of(
        known([(int(i), int(d), True) for i, d in zip(random.integers(0, 4, 40), random.integers(0, 20, 40), strict=True)]), 4, days
    )
    item_counters.save(tmp_path)
    moved = ItemCounters.load(tmp_path).reindex(np.array([5, -1, 0, 2]), 6)
    asked = np.full(3, 1_000_000 + 21 * DAY)
    old, new = np.array([0, 2, 3]), np.array([5, 0, 2])
    for read in (ItemCounters.until, ItemCounters.last):
        np.testing.assert_array_equal(read(item_counters, old, asked), read(moved, new, asked))
    np.testing.assert_array_equal(item_counters.within(old, asked, 4), moved.within(new, asked, 4))
    assert moved.until(np.array([1, 3, 4]), asked).tolist() == [0, 0, 0]
    assert moved.first[[1, 3, 4]].tolist() == [NEVER] * 3


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, N_ITEMS - 1), st.integers(0, 30 * DAY), st.booleans()), max_size=30), st.sampled_from([None, 5]))
def test_counters_by_day_hold_no_time_and_know_nothing_early(events: list[tuple[int, int, bool]], days: int | None) -> None:
    items, seconds, positive = zip(*events, strict=True) if events else ((), (), ())
    order = np.argsort(seconds, kind="stable")
    one = Histories(
        np.array([0, len(events)]),
        np.array(items, dtype=np.int32)[order],
        1_000_000 + np.array(seconds, dtype=np.int64)[order],
        np.zeros(len(events), dtype=np.int16),
        np.array(positive, dtype=bool)[order],
        np.zeros(1, dtype=np.int64),
    )
    exact, rounded = ItemCounters.of(one, N_ITEMS, days), ItemCounters.of(one, N_ITEMS, days).by_day()
    held = np.concatenate([rounded.keys % SPAN + rounded.start, rounded.times + rounded.start, rounded.before_last, rounded.first])
    assert not (held[held != NEVER] % DAY).any()
    everything = np.arange(N_ITEMS)
    for when in range(1_000_000, 1_000_000 + 32 * DAY, 7 * 3600):
        asked = np.full(N_ITEMS, when)
        if days is None:
            assert (rounded.until(everything, asked) <= exact.until(everything, asked)).all()
        midnight = np.full(N_ITEMS, -(-when // DAY) * DAY + 1)
        assert (rounded.until(everything, midnight) >= exact.until(everything, asked)).all()
    np.testing.assert_array_equal(rounded.until(everything, asked), exact.until(everything, asked))
