"""The label head: what it reads was known before the event, and its answers survive a journey."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nightloom.core.calibration import Line
from nightloom.core.errors import InputError
from nightloom.core.queries import Query
from nightloom.core.sequences import Histories
from nightloom.models.heads.label_counters import COUNTERS, LabelCounters
from nightloom.models.heads.label_head import SITES, LabelHead
from nightloom.models.heads.label_probabilities import LabelProbabilities
from nightloom.models.sequential.network import SequentialNetwork, encode, inference
from nightloom.models.sequential.windows import Windows
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.write import write_bundle
from tests.small_bundle import small_bundle

N_ITEMS, START = 5, 1_700_000_000
event = st.tuples(st.integers(0, N_ITEMS - 1), st.integers(0, 6), st.booleans())


def histories(users: list[list[tuple[int, int, bool]]], asked: int = 100) -> Histories:
    """Histories of (item, hour, positive), in order of time."""
    flat = [one for events in users for one in sorted(events, key=lambda one: one[1])]
    items, hours, positive = zip(*flat, strict=True) if flat else ((), (), ())
    offsets = np.cumsum([0, *map(len, users)], dtype=np.int64)
    times = START + 3600 * np.array(hours, dtype=np.int64)
    when = np.full(len(users), START + 3600 * asked)
    return Histories(
        offsets, np.array(items, dtype=np.int32), times, np.zeros(len(items), dtype=np.int16), np.array(positive, dtype=bool), when
    )


@settings(deadline=None)
@given(st.lists(st.lists(event, max_size=8), min_size=1, max_size=4), st.integers(0, 6), st.data())
def test_an_event_changes_no_counter_of_its_time_or_earlier(
    users: list[list[tuple[int, int, bool]]], hour: int, data: st.DataObject
) -> None:
    whole = histories(users)
    moment = START + 3600 * hour
    late = whole.times >= moment
    flags = np.array(data.draw(st.lists(st.booleans(), min_size=len(late), max_size=len(late))), dtype=bool)
    items = np.array(data.draw(st.lists(st.integers(0, N_ITEMS - 1), min_size=len(late), max_size=len(late))), dtype=np.int32)
    # The same events up to that hour; from then on other items and other labels. What is asked about is what each user had first.
    other = replace(whole, positive=np.where(late, flags, whole.positive), items=np.where(late, items, whole.items))
    one, two = (LabelCounters.of(known, N_ITEMS).of_events(known) for known in (whole, other))
    np.testing.assert_array_equal(one[~late], two[~late])
    user = COUNTERS.index("user events")
    at = late & (whole.times == moment)
    np.testing.assert_array_equal(one[at][:, user:], two[at][:, user:])
    asked = np.arange(len(whole)), np.zeros(len(whole), dtype=np.int64)
    before, after = (
        LabelCounters.of(known, N_ITEMS).of_pairs(replace(known, request_time=whole.request_time * 0 + moment), *asked)
        for known in (whole, other)
    )
    np.testing.assert_array_equal(before, after)


def test_a_question_is_told_what_training_was_told() -> None:
    users = [[(0, 0, True), (1, 1, False), (0, 3, True)], [(0, 2, False), (2, 3, True)]]
    known = histories(users)
    counters = LabelCounters.of(known, N_ITEMS)
    told = counters.of_events(known)
    asked = histories([users[0][:2], users[1][:1]], asked=3)
    np.testing.assert_allclose(counters.of_pairs(asked, np.array([0, 1]), np.array([0, 2])), told[[2, 4]], rtol=1e-6)
    item, user = told[2, :2], told[2, 3:5]  # item 0: one liked and one not before hour 3; the user: likewise
    np.testing.assert_allclose(np.concatenate([item, user]), [np.log(3), 0, np.log(3), 0], atol=1e-6)


def test_a_label_is_heard_from_before_its_time_only() -> None:
    windows = Windows.to_train(
        histories([[(0, 0, True), (1, 2, True), (2, 2, False), (3, 2, True), (4, 5, True)]]), 10, np.random.default_rng(0)
    )
    assert windows.items.tolist() == [-1, 0, 1, 2, 3]
    assert windows.following.tolist() == [0, 1, 2, 3, 4]
    assert windows.last_earlier_token().tolist() == [0, 1, 1, 1, 4]
    assert windows.negative.tolist() == [False, False, False, True, False]
    later = windows.take(np.array([0]))
    assert later.last_earlier_token().tolist() == windows.last_earlier_token().tolist()


def test_what_was_not_liked_counts_and_dropout_is_for_training() -> None:
    torch.manual_seed(0)
    head = LabelHead(8)
    with torch.no_grad():
        head.negative.normal_()
    tokens = torch.randn(4, 8)
    marked = head.mark(tokens, np.array([True, False]))
    assert torch.equal(marked[1:], tokens[1:])
    assert not torch.equal(marked[0], tokens[0])
    given = torch.randn(3, 8), torch.randn(3, 8), torch.randn(3, len(COUNTERS))
    whole = head(*given)
    assert whole.shape == (3,)
    torch.testing.assert_close(head(2 * given[0], *given[1:]), whole)  # the temperature of retrieval says nothing
    assert not torch.equal(head(*given, torch.zeros(SITES, 3, 8)), whole)


def test_chances_survive_a_journey_and_another_catalogue(tmp_path: Path) -> None:
    bundle = Bundle.load(small_bundle(tmp_path / "first"))
    recommender = bundle.recommender
    with pytest.raises(InputError, match="label_weight"):
        bundle.probabilities([Query(["i0"])], [["i1"]])
    torch.manual_seed(1)
    shape = replace(recommender.shape, labelled=True)
    net = SequentialNetwork(recommender.config, shape)
    known = Histories.of_items([[0, 1, 2], [1, 0]], request_time=START)
    known = replace(known, positive=np.array([1, 0, 1, 0, 1], dtype=bool), times=START - np.array([3, 2, 1, 5, 4]))
    net.load_state_dict(recommender.net.state_dict(), strict=False)
    with torch.no_grad():
        for parameter in net.label_head.parameters():  # type: ignore[union-attr]
            parameter.normal_(std=0.5)
    recommender.net, recommender.shape = net.requires_grad_(False), shape
    recommender.labels = LabelProbabilities(Line(0.5, -0.2), LabelCounters.of(known, recommender.n_items))
    write_bundle(recommender, tmp_path / "first-source", tmp_path / "bundle")
    loaded = Bundle.load(tmp_path / "bundle")
    ids = loaded.item_ids.tolist()
    queries, items = [Query(ids[:2], [START, START + 5], positive=[True, False]), Query()], [ids[2:4], ids[:1]]
    probabilities = loaded.probabilities(queries, items)
    assert [len(one) for one in probabilities] == [2, 1]
    assert all(0 < one < 1 for part in probabilities for one in part)
    assert probabilities == bundle.probabilities(queries, items)
    assert (
        probabilities[0] != loaded.probabilities([replace(one, positive=None) for one in queries], items)[0]
    )  # all liked is another history
    with pytest.raises(InputError, match="1 items unknown"):
        loaded.probabilities([Query()], [["no such item"]])
    with inference(net):
        assert torch.isfinite(encode(net, recommender.item_vectors(), known, recommender.config.max_history)).all()
    turned = loaded.items.iloc[::-1].reset_index(drop=True)
    other = loaded.reindex(turned, None)
    row = np.zeros(1, dtype=np.int64)
    here, there = (
        one.probabilities(Histories.of_items([[]], START), row, np.array([item]))
        for one, item in ((loaded.recommender, 2), (other, len(ids) - 3))
    )  # type: ignore[attr-defined]
    np.testing.assert_allclose(there, here, rtol=1e-5)
