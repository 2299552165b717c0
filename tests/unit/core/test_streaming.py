"""Streaming queries: what each knows, which events are asked about, and that one pass of the network is many histories read alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nightloom.core import streaming
from nightloom.core.ranking import ranks
from nightloom.core.sequences import Histories, Sequences
from nightloom.core.streaming import DAY, Prefixes, askable, queries_of, streaming_queries
from nightloom.models.scorers.registry import CLASSES, fit_scorers
from nightloom.models.sequential.network import SequentialNetwork
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.training.distributed import World
from nightloom.training.validation import network_ndcg
from tests.unit.models.test_sequential import LOOM, N_ITEMS, small_recommender

START = 1_700_000_000
PARTS = ("validation", "test")


def sequences_of(random: np.random.Generator, lengths: list[int], *, timed: bool, most: int = 12) -> Sequences:
    """Users with events in a few coarse seconds, cut at two times; every user is linked to the next."""
    offsets = np.cumsum([0, *lengths])
    total, users = int(offsets[-1]), len(lengths)
    times = np.concatenate([np.sort(random.integers(0, most, length)) for length in lengths] or [np.zeros(0)]).astype(np.int64)
    owner = np.repeat(np.arange(users), lengths)
    cuts = [offsets[:-1] + np.bincount(owner[times < cut], minlength=users) for cut in (most // 3, most // 2)]
    return Sequences(
        offsets,
        random.integers(0, N_ITEMS, total).astype(np.int32),
        (START + 3600 * times) * timed,
        random.integers(0, 2, total).astype(np.int16),
        random.random(total) < 0.7,
        *cuts,
        n_items=N_ITEMS,
        link_offsets=np.arange(users + 1),
        link_users=(np.arange(users) + 1) % users,
        seen=random.random(total) < 0.8,
    )


@st.composite
def made(draw: st.DrawFn, most_events: int = 14) -> Sequences:
    lengths = draw(st.lists(st.integers(0, most_events), min_size=1, max_size=5))
    return sequences_of(np.random.default_rng(draw(st.integers(0, 10**6))), lengths, timed=draw(st.booleans()))


def by_definition(one: Sequences, part: str, exclude_seen: bool) -> list[tuple[int, list[int], int, int]]:
    """(user, items known, item asked about, time) of each query, event by event."""
    found = []
    for user in range(one.n_users):
        first, last = int(one.offsets[user]), int(one.offsets[user + 1])
        cuts = (int(one.train_end[user]), int(one.validation_end[user]), last)
        start, stop = cuts[:2] if part == "validation" else cuts[1:]
        moments = one.has_time and len(set((one.times % DAY).tolist())) > 1  # else they are dates
        asked: set[tuple[int, int]] = set()
        for place in range(start, stop):
            known = [at for at in range(first, last) if (one.times[at] < one.times[place] if moments else at < place)]
            item = int(one.items[place])
            if not one.positive[place] or (exclude_seen and item in {int(one.items[at]) for at in known if one.seen[at]}):
                continue
            if (item, len(known)) in asked:
                continue
            asked.add((item, len(known)))
            found.append((user, one.items[known].tolist(), item, int(one.times[place])))
    return found


@settings(deadline=None, max_examples=60)
@given(made(), st.sampled_from(PARTS), st.booleans())
def test_each_event_is_asked_with_what_was_known_strictly_before_it(one: Sequences, part: str, exclude_seen: bool) -> None:
    queries = streaming_queries(one, part, exclude_seen=exclude_seen)
    known = queries.histories.packed()
    found = [
        (int(user), known.items[known.offsets[row] : known.offsets[row + 1]].tolist(), int(item), int(time))
        for row, (user, item, time) in enumerate(zip(queries.users, queries.targets, queries.times, strict=True))
    ]
    assert found == by_definition(one, part, exclude_seen)
    np.testing.assert_array_equal(known.request_time, queries.times)
    assert askable(one, part, exclude_seen=exclude_seen).sum() == len(queries)
    for name in ("times", "event_types", "positive", "seen"):  # the other columns go with the items
        whole, start, stop = getattr(one, name), one.offsets[queries.users], queries.histories.stop
        for row in range(len(queries)):
            np.testing.assert_array_equal(getattr(known, name)[known.offsets[row] : known.offsets[row + 1]], whole[start[row] : stop[row]])


@settings(deadline=None, max_examples=40)
@given(made(), st.sampled_from(PARTS))
def test_friends_are_known_as_they_were_when_the_part_began(one: Sequences, part: str) -> None:
    queries = streaming_queries(one, part)
    end = one.train_end if part == "validation" else one.validation_end
    for first in range(0, len(queries), 3):  # as it is read, in blocks
        links = queries.histories.take(slice(first, first + 3)).packed().links
        assert links is not None
        np.testing.assert_array_equal(links.known.lengths, end - one.offsets[:-1])
        np.testing.assert_array_equal(links.friends, (queries.users[first : first + 3] + 1) % one.n_users)


def test_events_of_one_basket_do_not_know_each_other() -> None:
    one = Sequences(
        np.array([0, 6]), np.array([0, 1, 2, 3, 2, 4], dtype=np.int32), np.array([10, 20, 20, 20, 20, 30]), np.zeros(6, dtype=np.int16),
        np.ones(6, dtype=bool), np.array([1]), np.array([1]), n_items=5,
    )  # fmt: skip
    queries = streaming_queries(one, "test")
    assert queries.targets.tolist() == [1, 2, 3, 4]  # the second 2 of the basket is the same question
    assert queries.histories.lengths.tolist() == [1, 1, 1, 5]


def test_dates_are_no_moments() -> None:
    """Events of one day follow each other in the order of the rows, unless another has a time of day."""
    one = Sequences(
        np.array([0, 4]), np.array([0, 1, 2, 1], dtype=np.int32), DAY * np.array([1, 2, 2, 2]), np.zeros(4, dtype=np.int16),
        np.ones(4, dtype=bool), np.array([1]), np.array([1]), n_items=5,
    )  # fmt: skip
    assert streaming_queries(one, "test").histories.lengths.tolist() == [1, 2]
    assert streaming_queries(one, "test", exclude_seen=False).histories.lengths.tolist() == [1, 2, 3]
    clocked = replace(one, times=one.times + np.array([1, 0, 0, 0]))
    assert streaming_queries(clocked, "test", exclude_seen=False).histories.lengths.tolist() == [1, 1]


def frozen(one: Sequences) -> SequentialRecommender:
    """A model whose scorers know all that was before the test."""
    scorers = fit_scorers([*CLASSES], one.train(with_validation=True), LOOM.content)
    return SequentialRecommender(LOOM.config, LOOM.shape, LOOM.net, LOOM.content, scorers, dict.fromkeys(CLASSES, 0.1))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.booleans())
def test_nothing_later_than_a_query_is_read(seed: int, timed: bool) -> None:
    random = np.random.default_rng(seed)
    one = sequences_of(random, random.integers(3, 14, 4).tolist(), timed=timed)
    queries = streaming_queries(one, "test", exclude_seen=False)
    if not len(queries):
        return
    asked = int(random.integers(len(queries)))
    now, stop = queries.times[asked], queries.histories.stop[asked]
    place = np.arange(len(one.items))
    owner = np.repeat(np.arange(one.n_users), np.diff(one.offsets))
    # Without times only a user's own events have an order; those of others count from the cut on.
    others = one.times >= now if timed else place >= one.validation_end[owner]
    later = np.where(owner == queries.users[asked], place >= stop, others)
    shuffled = random.permutation(np.flatnonzero(later))
    columns = {name: getattr(one, name).copy() for name in ("items", "event_types", "positive", "seen")}
    for column in columns.values():
        column[later] = column[shuffled]
    columns["items"][later] = random.integers(0, N_ITEMS, later.sum())
    columns["positive"][later] = random.random(later.sum()) < 0.5
    other = replace(one, **columns)
    mine = queries.users == queries.users[asked]
    before = np.flatnonzero((mine & (queries.histories.stop <= stop)) | (~mine & (queries.times < now) & timed))
    there, here = (replace(queries.histories, sequences=which).take(before) for which in (other, one))
    np.testing.assert_allclose(frozen(other).scores(there.packed()), frozen(one).scores(here.packed()), rtol=1e-5, atol=1e-5)
    kept = streaming_queries(other, "test", exclude_seen=False)
    for which in (queries.users[asked], *([] if not timed else np.unique(queries.users))):  # nor does what is asked depend on it
        first, again = (
            one.targets[(one.users == which) & ((one.histories.stop < stop) if which == queries.users[asked] else (one.times < now))]
            for one in (queries, kept)
        )
        np.testing.assert_array_equal(again, first)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.booleans())
def test_the_last_event_is_asked_as_leave_one_out_asks_it(seed: int, exclude_seen: bool) -> None:
    random = np.random.default_rng(seed)
    one = sequences_of(random, random.integers(2, 10, 5).tolist(), timed=True)
    one = replace(one, times=START + np.arange(len(one.items)), positive=np.ones(len(one.items), dtype=bool))
    last = one.offsets[1:] - 1
    one = replace(one, train_end=last - 1, validation_end=last)
    streamed, left = (queries_of(name, one, "test", exclude_seen=exclude_seen) for name in ("streaming", "leave_one_out"))
    for name in ("users", "targets", "times"):
        np.testing.assert_array_equal(getattr(streamed, name), getattr(left, name))
    found, expected = (ranks(frozen(one), queries, exclude_seen=exclude_seen) for queries in (streamed, left))
    np.testing.assert_array_equal(found.ranks, expected.ranks)
    np.testing.assert_array_equal(found.top, expected.top)


def with_label_head() -> SequentialRecommender:
    shape = replace(LOOM.shape, labelled=True)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = SequentialNetwork(LOOM.config, shape)
        net.load_state_dict(LOOM.net.state_dict(), strict=False)
        for parameter in net.label_head.parameters():  # type: ignore[union-attr]  # the shape says so
            torch.nn.init.normal_(parameter, std=0.5)
    return SequentialRecommender(LOOM.config, shape, net, LOOM.content, {}, {})


MODELS = {"timed": LOOM, "no use of time": small_recommender(use_time=False), "label head": with_label_head()}


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.booleans(), st.sampled_from(sorted(MODELS)))
def test_one_pass_of_the_network_is_each_history_alone(seed: int, timed: bool, name: str) -> None:
    random = np.random.default_rng(seed)
    one = sequences_of(random, random.integers(0, 14, 4).tolist(), timed=timed)  # windows hold 5 tokens
    queries = streaming_queries(one, "test", exclude_seen=False)
    order = random.permutation(len(queries))
    together = queries.histories.take(order).packed()
    items = MODELS[name].item_vectors()
    found = MODELS[name].user_vectors(together, items)
    assert together.prefixes is not None

    def alone(row: int) -> Tensor:
        return MODELS[name].user_vectors(replace(together.take(np.array([row])), prefixes=None), items)[0]

    for row in range(len(together)):
        torch.testing.assert_close(found[row], alone(row), rtol=1e-5, atol=1e-5)


def test_the_network_reads_a_sequence_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of queries of one user cost the tokens of one history."""
    random = np.random.default_rng(0)
    model = small_recommender(max_history=300)
    one = sequences_of(random, [200], timed=True, most=10_000)
    histories = streaming_queries(one, "test", exclude_seen=False).histories.packed()
    read: list[int] = []
    users = type(model.net).users

    def counted(net: SequentialNetwork, tokens: Tensor, *more: Any, **at: Any) -> Tensor:
        read.append(len(tokens))
        return users(net, tokens, *more, **at)

    monkeypatch.setattr(type(model.net), "users", counted)
    model.user_vectors(histories, model.item_vectors())
    assert len(histories) > 50
    assert sum(read) <= 201


def test_long_users_are_sampled_the_same_for_the_same_data(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(5)
    one = sequences_of(random, [40, 6, 30, 0, 25, 8], timed=True, most=1000)
    everything = streaming_queries(one, "test", exclude_seen=False)
    monkeypatch.setattr(streaming, "MOST_OF_A_USER", 9)
    some = streaming_queries(one, "test", exclude_seen=False)
    whole, kept = (dict(zip(*np.unique(asked.users, return_counts=True), strict=True)) for asked in (everything, some))
    assert kept == {user: min(many, 9) for user, many in whole.items()}
    assert (np.diff(some.users * 10**10 + some.histories.stop) >= 0).all()  # by user and time
    every, drawn = (set(zip(asked.users.tolist(), asked.histories.stop.tolist(), strict=True)) for asked in (everything, some))
    assert drawn < every
    again = streaming_queries(one, "test", exclude_seen=False)
    np.testing.assert_array_equal(again.histories.stop, some.histories.stop)
    monkeypatch.setattr(streaming, "MOST_QUERIES", 20)
    few = streaming_queries(one, "test", exclude_seen=False)
    assert 0 < len(few) <= 20
    for user, many in zip(*np.unique(few.users, return_counts=True), strict=True):
        assert many == kept[user]  # a user is asked whole or not at all
    assert len(np.unique(few.users)) < len(kept)
    assert askable(one, "test", exclude_seen=False).sum() == len(everything)
    monkeypatch.setattr(streaming, "MOST_SCORES", 10 * one.n_items)
    assert 0 < len(streaming_queries(one, "test", exclude_seen=False)) <= 10  # as few as a large catalogue can be ranked for


def test_two_workers_find_the_ndcg_that_one_finds() -> None:
    random = np.random.default_rng(8)
    queries = streaming_queries(sequences_of(random, random.integers(3, 14, 9).tolist(), timed=True), "test", exclude_seen=False)
    sums: list[float] = []

    class Part(World):
        def sum_(self, values: Tensor) -> Tensor:
            sums.append(float(values))
            return values

    whole = network_ndcg(LOOM, queries, World(), exclude_seen=False)
    for rank in (0, 1):
        network_ndcg(LOOM, queries, Part(rank, 2), exclude_seen=False)
    assert whole > 0
    assert all(sums)
    assert sum(sums) / len(queries) == pytest.approx(whole, rel=1e-6)


def test_prefixes_give_what_their_histories_give() -> None:
    random = np.random.default_rng(2)
    histories = streaming_queries(sequences_of(random, [9, 0, 12], timed=True), "test").histories
    assert isinstance(histories, Prefixes)
    packed: Histories = histories.packed()
    values = random.integers(0, 9, N_ITEMS)
    np.testing.assert_array_equal(histories.lengths, packed.lengths)
    np.testing.assert_allclose(histories.totals(values), packed.totals(values))
    codes = np.array([1, 0], dtype=np.int16)
    np.testing.assert_array_equal(histories.recoded(codes).packed().event_types, packed.recoded(codes).event_types)
