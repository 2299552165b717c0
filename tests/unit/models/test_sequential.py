from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nightloom.core.errors import InputError
from nightloom.core.sequences import Histories
from nightloom.data.preparation.items import ItemFeatures
from nightloom.encoders import whitening
from nightloom.encoders.whitening import Whitening
from nightloom.models.scorers.registry import CLASSES, fit_scorers
from nightloom.models.scorers.score_fusion import NETWORK, fuse, standard
from nightloom.models.sequential import recommender as recommender_module
from nightloom.models.sequential.content_fusion import ItemContent
from nightloom.models.sequential.network import SequentialNetwork, Shape, like_lengths
from nightloom.models.sequential.recommender import SequentialRecommender

N_ITEMS, TEXT_DIM = 12, 6


def small_recommender(**changes: object) -> SequentialRecommender:
    """An untrained model with every part in play; item 11 has no id of its own, item 10 no text, item 9 no attributes."""
    settings = {
        "dim": 8, "blocks": 2, "heads": 2, "dropout": 0.0, "id_dropout": 0.0, "max_history": 5,
        "use_text": True, "use_attributes": True, "use_ids": True, "use_time": True,
    }  # fmt: skip
    config = SimpleNamespace(**(settings | changes))
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    counts = np.array([1, 2, 0] * 3 + [0, 1, 1])
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    numbers = random.normal(size=(N_ITEMS, 2)).astype(np.float32)
    features = ItemFeatures(offsets, random.integers(0, 4, offsets[-1]).astype(np.int32), numbers, np.ones_like(numbers, dtype=bool), 4)
    has_text = np.arange(N_ITEMS) != 10
    text = random.normal(size=(N_ITEMS, TEXT_DIM)).astype(np.float32) * has_text[:, None]
    rows = np.where(np.arange(N_ITEMS) == 11, 0, np.arange(N_ITEMS) + 1).astype(np.int64)
    content = ItemContent.build(features, text, has_text, rows)
    shape = Shape(TEXT_DIM, 4, content.numbers.shape[1], N_ITEMS, 2, True)
    net = SequentialNetwork(config, shape)
    with torch.no_grad():
        for parameter in net.parameters():  # far from the flat start, so that every part shows
            parameter.add_(torch.randn_like(parameter) * 0.3)
        if net.fusion.use_text:
            net.fusion.whiten.fit(content.text[content.has_text])
    scorers = fit_scorers([*CLASSES], Histories.of_items([[0, 1, 2, 3], [3, 2, 4]]), content)
    return SequentialRecommender(config, shape, net, content, scorers, dict.fromkeys(CLASSES, 0.1))


def asked(lists: list[list[int]], gap: int = 60) -> Histories:
    """Histories with an event every `gap` seconds, asked one gap after the last."""
    plain = Histories.of_items(lists)
    times = np.concatenate([1000 + gap * np.arange(len(one)) for one in lists] or [np.zeros(0)]).astype(np.int64)
    return Histories(
        plain.offsets,
        plain.items,
        times,
        plain.event_types,
        plain.positive,
        np.array([1000 + gap * len(one) for one in lists], dtype=np.int64),
    )


LOOM = small_recommender()
history = st.lists(st.integers(0, N_ITEMS - 1), max_size=9)


@settings(deadline=None, max_examples=30)
@given(st.lists(history, min_size=1, max_size=6))
def test_a_history_is_answered_alike_alone_and_in_company(lists: list[list[int]]) -> None:
    together = LOOM.network_scores(asked(lists))
    assert np.isfinite(together).all()
    for row, one in enumerate(lists):
        np.testing.assert_allclose(LOOM.network_scores(asked([one]))[0], together[row], rtol=1e-4, atol=1e-5)


def test_only_the_latest_events_are_read() -> None:
    long = asked([[1, 2, 3, 4, 5, 6, 7]])
    np.testing.assert_allclose(LOOM.network_scores(long), LOOM.network_scores(asked([[9, 9, 3, 4, 5, 6, 7]])), rtol=1e-5)
    assert not np.allclose(LOOM.network_scores(long), LOOM.network_scores(asked([[1, 2, 9, 4, 5, 6, 7]])))


def test_order_time_and_kind_of_events_count() -> None:
    base = LOOM.network_scores(asked([[1, 2, 3]]))
    assert not np.allclose(base, LOOM.network_scores(asked([[2, 1, 3]])))
    assert not np.allclose(base, LOOM.network_scores(asked([[1, 2, 3]], gap=86_400)))
    other_kind = asked([[1, 2, 3]])
    other_kind.event_types[0] = 1
    assert not np.allclose(base, LOOM.network_scores(other_kind))


def test_times_that_are_not_given_are_unknown_and_not_zero() -> None:
    unknown = LOOM.network_scores(Histories.of_items([[1, 2, 3]]))
    assert not np.allclose(unknown, LOOM.network_scores(asked([[1, 2, 3]], gap=0)))


def test_the_future_does_not_reach_the_past() -> None:
    from nightloom.models.sequential.history_encoder import Packed
    from nightloom.models.sequential.windows import Windows

    def tokens(items: list[int]) -> torch.Tensor:
        windows = Windows.to_train(asked([items]), 9, np.random.default_rng(0))
        batch = Packed.of(windows, torch.device("cpu"), use_time=True)
        with torch.no_grad():
            return LOOM.net.users(LOOM.net.encoder.tokens(LOOM.item_vectors(), batch.items), batch)

    one, two = tokens([1, 2, 3, 4, 5]), tokens([1, 2, 3, 9, 8])
    torch.testing.assert_close(one[:4], two[:4])  # tokens BOS, 1, 2, 3
    assert not torch.allclose(one[4], two[4])


@given(st.lists(st.integers(0, 40), min_size=1, max_size=9))
def test_rounding_up_counts_changes_no_answer(lengths: list[int]) -> None:
    histories = asked([[item % N_ITEMS for item in range(length)] for length in lengths])
    one_by_one = np.concatenate([LOOM.network_scores(histories.take(np.array([row]))) for row in range(len(lengths))])
    np.testing.assert_allclose(LOOM.network_scores(histories), one_by_one, atol=1e-4)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=9))
def test_fillers_stand_where_the_padded_batch_is_free(lengths: list[int]) -> None:
    from nightloom.models.sequential.history_encoder import Packed, few_shapes
    from nightloom.models.sequential.windows import Windows

    windows = Windows.to_answer(asked([[1] * length for length in lengths]), 99)
    batch, tokens = Packed.of(windows, torch.device("cpu"), use_time=True), len(windows.items)
    assert len(batch.place.unique()) == len(batch.place)
    assert len(batch.items) == min(few_shapes(tokens), batch.windows * batch.longest)
    assert tokens <= few_shapes(tokens) <= max(tokens * 1.125, tokens + 8)
    ends = windows.lengths[batch.place[tokens:].numpy() // batch.longest]
    assert (batch.place[tokens:].numpy() % batch.longest >= ends).all()


def test_whitened_once_is_whitened_each_time() -> None:
    with torch.no_grad():
        torch.testing.assert_close(LOOM.net.fusion(LOOM.net.fusion.whitened(LOOM.content), white=True), LOOM.item_vectors())


def test_items_without_text_or_id_have_vectors_of_their_own_kind() -> None:
    vectors = LOOM.item_vectors()
    no_text = LOOM.content.with_text(LOOM.content.text + 1)  # what stands where there is no text is never read
    with torch.no_grad():
        torch.testing.assert_close(LOOM.net.fusion(no_text)[10], vectors[10])
        hidden = torch.zeros(N_ITEMS, dtype=torch.bool)
        hidden[[3, 11]] = True
        masked = LOOM.net.fusion(LOOM.content, hidden)
    torch.testing.assert_close(masked[11], vectors[11])  # an unseen item is like one whose id is hidden
    assert not torch.allclose(masked[3], vectors[3])
    torch.testing.assert_close(masked[4], vectors[4])


def test_some_items_are_vectored_as_among_all() -> None:
    rows = torch.tensor([9, 2, 11])
    with torch.no_grad():
        torch.testing.assert_close(LOOM.net.fusion(LOOM.content.take(rows)), LOOM.item_vectors()[rows])


def test_whitened_text_is_centred_and_of_unit_variance() -> None:
    torch.manual_seed(0)
    text = torch.randn(500, 5) @ torch.randn(5, 5) + 7
    whiten = Whitening(5)
    whiten.fit(text)
    white = whiten(text)
    torch.testing.assert_close(white.mean(0), torch.zeros(5), atol=1e-3, rtol=0)
    torch.testing.assert_close(torch.cov(white.T), torch.eye(5), atol=1e-2, rtol=0)
    few = Whitening(20)
    few.fit(torch.randn(4, 20))  # fewer texts than dimensions
    assert torch.isfinite(few.directions).all()


def test_a_large_catalogue_is_whitened_some_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whitening, "ROWS", 100)
    torch.manual_seed(0)
    text, given = torch.randn(1050, 5) @ torch.randn(5, 5) + 7, torch.rand(1050) < 0.9
    text[~given] = 1e9  # has no meaning
    white = Whitening(5)
    white.fit(text, given)
    found = white.whole(text[given])
    torch.testing.assert_close(found, white(text[given]))
    assert found.mean(0).tolist() == pytest.approx([0] * 5, abs=0.4), "it was fitted on a hundred texts"
    assert torch.cov(found.T).diagonal().tolist() == pytest.approx([1] * 5, abs=0.4)


def test_a_large_catalogue_gets_its_vectors_some_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recommender_module, "ROWS", 5)
    torch.testing.assert_close(small_recommender().item_vectors(), LOOM.item_vectors())


def test_while_a_network_is_unchanged_its_item_vectors_are_made_once() -> None:
    loom = small_recommender()
    first = loom.item_vectors()
    assert loom.item_vectors() is not first, "it may learn in between"
    with loom.unchanged():
        assert loom.item_vectors() is loom.item_vectors()
        np.testing.assert_array_equal(loom.network_scores(asked([[0, 1], []])), LOOM.network_scores(asked([[0, 1], []])))
    assert loom.item_vectors() is not loom.item_vectors()


def test_scorers_have_their_shares() -> None:
    ask = asked([[0, 1], []])
    network, scorers = LOOM.network_scores(ask), LOOM.scorer_scores(ask)
    assert list(scorers) == list(CLASSES)
    members = {name: standard(scores) for name, scores in {NETWORK: network, **scorers}.items()}
    np.testing.assert_array_equal(fuse(members, {}).argmax(1), network.argmax(1))
    for name, scores in scorers.items():
        assert fuse(members, {name: 1})[0].argmax() == scores[0].argmax()
    assert np.isfinite(LOOM.scores(ask)).all()
    assert np.isfinite(fuse(members | {"graph": standard(np.full_like(network, -np.inf))}, {"graph": 0.5})).all()


def test_a_scorer_without_a_share_is_not_asked() -> None:
    recommender = small_recommender()
    recommender.weights = {"graph": 0.2}
    assert list(recommender.scorer_scores(asked([[0, 1]]))) == ["graph"]


@pytest.mark.parametrize("part", ["use_text", "use_attributes", "use_ids", "use_time"])
def test_parts_can_be_left_out(part: str) -> None:
    assert np.isfinite(small_recommender(**{part: False}).scores(asked([[1, 2], []]))).all()


def test_refitting_on_another_catalogue_is_refused() -> None:
    with pytest.raises(InputError, match="ranks 12 items, not 5"):
        LOOM.fit(Histories.of_items([[1]]), 5)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 100))
def test_batches_of_like_length_stay_within_the_budget(lengths: list[int], budget: int) -> None:
    ordered = np.sort(np.array(lengths))
    runs = list(like_lengths(ordered, budget))
    np.testing.assert_array_equal(np.concatenate(runs), np.arange(len(ordered)))
    assert all(len(run) == 1 or len(run) * ordered[run].max() <= budget for run in runs)
