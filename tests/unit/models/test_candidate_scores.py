"""Scores and moments of a few candidates are those of the full table, for every scorer and for the fused scores."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nightloom.core.moments import Moments, VectorMoments
from nightloom.core.recommender import Scorer
from nightloom.core.sequences import Histories, Links
from nightloom.models.scorers import sparse
from nightloom.models.scorers.popularity import Popularity
from nightloom.models.scorers.registry import CLASSES
from nightloom.models.scorers.text_neighbours import TextNeighbours
from tests.unit.models.test_sequential import LOOM, N_ITEMS

LENGTHS = (0, 1, 50, 400)


def drawn(random: np.random.Generator, n_items: int, lengths: list[int], *, linked: bool) -> Histories:
    """Random histories with repeated items, negative events and, where linked, friends."""
    plain = Histories.of_items([random.integers(0, n_items, length).tolist() for length in lengths])
    links = None
    if linked:
        known = Histories.of_items([random.integers(0, n_items, length).tolist() for length in (0, 3, 9)])
        many = random.integers(0, 4, len(lengths))
        links = Links(np.concatenate([[0], np.cumsum(many)]), random.integers(0, 3, many.sum()), known)
    return replace(plain, positive=random.random(len(plain.items)) < 0.8, links=links)


def fitted(name: str, random: np.random.Generator, n_items: int) -> Scorer:
    """A scorer over a catalogue of which about half of the items have no events, and a third no text."""
    train = drawn(random, (n_items + 1) // 2, random.integers(0, 9, 6).tolist(), linked=False)
    model = CLASSES[name]()
    if isinstance(model, TextNeighbours):
        torch.manual_seed(int(random.integers(99)))
        model.neighbours = 3
        model.read(torch.randn(n_items, 5), torch.from_numpy(random.random(n_items) < 0.7))
    return model.fit(train, n_items)


@pytest.mark.parametrize("name", [*CLASSES])
@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 40),
    st.lists(st.sampled_from(LENGTHS), min_size=1, max_size=5),
    st.booleans(),
    st.integers(0, 10_000),
    st.sampled_from([(1, 0, 99), (200, 4, 99), (1 << 22, 0, 99), (1 << 22, 4, 99), (1 << 22, 4, 0)]),
)
def test_candidates_score_and_standardise_as_in_the_full_table(
    name: str, n_items: int, lengths: list[int], linked: bool, seed: int, blocks: tuple[int, int, int]
) -> None:
    random = np.random.default_rng(seed)
    model, histories = fitted(name, random, n_items), drawn(random, n_items, lengths, linked=linked)
    candidates = np.array([random.permutation(n_items)[: max(1, n_items // 2)] for _ in lengths])
    full = model.scores(histories)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparse, "BLOCK_CELLS", blocks[0])
        patch.setattr(sparse, "DENSE", blocks[1])
        patch.setattr(sparse, "MANY_ITEMS", blocks[2])
        scores, moments = model.candidate_scores(histories, candidates)
    np.testing.assert_allclose(scores, np.take_along_axis(full, candidates, 1), rtol=1e-6)
    expected = Moments.of(full)
    size = np.hypot(expected.mean, expected.std)
    for attribute in ("mean", "std", *(("lowest",) if np.isneginf(full).any() else ())):
        difference = np.abs(getattr(moments, attribute) - getattr(expected, attribute))
        assert (difference <= 1e-6 * size + 1e-12).all(), attribute
    standardised = np.take_along_axis(expected.standardise(full), candidates, 1)
    np.testing.assert_allclose(moments.standardise(scores), standardised, atol=1e-5)
    slow = Scorer.candidate_scores(model, histories, candidates)  # what a scorer without a shorter way does
    np.testing.assert_allclose(slow[1].standardise(slow[0]), standardised, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from(LENGTHS), min_size=1, max_size=4), st.integers(0, 10_000))
def test_fused_scores_of_candidates_are_those_of_the_full_table(lengths: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    histories = drawn(random, N_ITEMS, lengths, linked=True)
    candidates = np.array([random.permutation(N_ITEMS)[:5] for _ in lengths])
    expected = np.take_along_axis(LOOM.scores(histories), candidates, 1)
    np.testing.assert_allclose(LOOM.candidate_scores(histories, candidates), expected, atol=1e-5)


@given(st.integers(0, 30), st.integers(1, 5), st.floats(0, 100), st.integers(0, 99))
def test_moments_of_inner_products_have_a_closed_form(items: int, dim: int, shift: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    vectors, users = (random.normal(size=(n, dim)).astype(np.float32) for n in (items + 2, 3))
    vectors[:, 0] += np.float32(shift)
    found, table = VectorMoments(vectors)(users), users.astype(np.float64) @ vectors.astype(np.float64).T
    np.testing.assert_allclose(found.mean, table.mean(1), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.std, table.std(1), rtol=1e-6, atol=1e-6)


def test_equal_scores_standardise_to_zero() -> None:
    model = Popularity().fit(Histories.of_items([[0, 1, 2], [2, 1, 0], [1, 0, 2]]), 3)
    queries = Histories.of_items([[0], []])
    scores, moments = model.candidate_scores(queries, np.array([[0, 2], [1, 2]]))
    assert not moments.standardise(scores).any()
    assert not Moments.of(model.scores(queries)).standardise(model.scores(queries)).any()


def test_of_no_queries_there_are_no_scores() -> None:
    for one in LOOM.scorers.values():
        scores, moments = one.candidate_scores(Histories.of_items([]), np.zeros((0, 3), dtype=np.int64))
        assert scores.shape == (0, 3)
        assert len(moments.mean) == 0
