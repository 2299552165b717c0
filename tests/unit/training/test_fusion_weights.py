from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightloom.core.errors import NightloomError
from nightloom.core.ranking import ndcg_sum
from nightloom.core.sequences import Histories, Queries
from nightloom.models.scorers.score_fusion import fuse, standard, weights_at
from nightloom.training.fusion_weights import NETWORK, Shortlists, choose_fusion

N_ITEMS, N_QUERIES = 30, 200


class Table:
    """A member whose scores are given, in the order of the queries."""

    def __init__(self, table: np.ndarray) -> None:
        self.table = table.astype(np.float32)

    def scores(self, histories: Histories) -> np.ndarray:
        return self.table[histories.request_time]


def members(network: np.ndarray, **scorers: np.ndarray) -> Any:
    tables = {name: Table(table) for name, table in scorers.items()}
    return SimpleNamespace(n_items=N_ITEMS, network_scores=Table(network).scores, scorers=tables)


def held_out(random: np.random.Generator) -> Queries:
    """Each query knows two items and holds out one or two others."""
    drawn = [random.permutation(N_ITEMS)[:4] for _ in range(N_QUERIES)]
    histories = Histories.of_items([one[:2].tolist() for one in drawn])
    histories.request_time[:] = np.arange(N_QUERIES)
    many = random.integers(1, 3, N_QUERIES)
    targets = np.concatenate([one[2 : 2 + n] for one, n in zip(drawn, many, strict=True)])
    return Queries(np.arange(N_QUERIES), histories, np.concatenate([[0], np.cumsum(many)]), targets.astype(np.int32))


def hints(queries: Queries, random: np.random.Generator, strength: float) -> np.ndarray:
    """Noise, with the held-out items raised."""
    table = random.normal(size=(N_QUERIES, N_ITEMS))
    table[np.repeat(np.arange(N_QUERIES), np.diff(queries.target_offsets)), queries.targets] += strength
    return table


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 99), st.booleans(), st.floats(0.1, 0.9))
def test_shortlists_give_what_the_whole_catalogue_gives(seed: int, exclude_seen: bool, weight: float) -> None:
    random = np.random.default_rng(seed)
    queries = held_out(random)
    network, other = hints(queries, random, 1), hints(queries, random, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nightloom.training.fusion_weights.SHORTLIST", 12)
        lists = Shortlists(members(network, other=other), queries, exclude_seen=exclude_seen)
    standardised = {NETWORK: standard(network.astype(np.float32)), "other": standard(other.astype(np.float32))}
    fused = fuse(standardised, {"other": weight})
    expected = ndcg_sum(fused, queries, exclude_seen=exclude_seen) / N_QUERIES
    found = lists.gains({NETWORK: 1 - weight, "other": weight}).mean()
    # A short list is exact unless an item is among the ten best of the sum and in no member's list of twelve.
    assert found == pytest.approx(expected, abs=0.02)
    alone = ndcg_sum(network.astype(np.float32).copy(), queries, exclude_seen=exclude_seen) / N_QUERIES
    assert lists.gains({NETWORK: 1.0}).mean() == pytest.approx(alone, abs=1e-6)


def test_what_helps_gets_a_weight_and_noise_gets_none() -> None:
    random = np.random.default_rng(0)
    queries = held_out(random)
    recommender = members(hints(queries, random, 1.5), helps=hints(queries, random, 1.5), noise=hints(queries, random, 0))
    fusion = choose_fusion(recommender, queries, exclude_seen=True)
    assert set(fusion.weights) == {"helps"}
    assert 0.2 < fusion.weights["helps"] < 0.8
    assert fusion.ndcg > max(fusion.alone.values()) + 0.05


def test_the_network_may_be_left_with_nothing() -> None:
    random = np.random.default_rng(1)
    queries = held_out(random)
    fusion = choose_fusion(members(hints(queries, random, 0), best=hints(queries, random, 4)), queries, exclude_seen=False)
    assert fusion.weights["best"] > 0.9


def test_without_scorers_or_queries_the_network_is_alone() -> None:
    random = np.random.default_rng(2)
    queries = held_out(random)
    network = hints(queries, random, 2)
    fusion = choose_fusion(members(network), queries, exclude_seen=False)
    assert fusion.weights == {}
    assert fusion.ndcg == fusion.alone[NETWORK] > 0.3
    none = Queries(queries.users[:0], queries.histories.take(np.arange(0)), np.zeros(1, np.int64), queries.targets[:0])
    assert choose_fusion(members(network, other=network), none, exclude_seen=False).weights == {}


def test_what_helps_newcomers_alone_is_weighed_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "N_QUERIES", 2000)
    random = np.random.default_rng(3)
    queries = held_out(random)
    lengths = np.where(np.arange(N_QUERIES) % 2, 0, 400)
    histories = Histories.of_items([[int(one) for one in random.integers(0, N_ITEMS, length)] for length in lengths])
    histories.request_time[:] = np.arange(N_QUERIES)
    queries = replace(queries, histories=histories)
    told = hints(queries, random, 4)
    told[lengths > 0] = random.normal(size=told[lengths > 0].shape)
    network = hints(queries, random, 3)
    network[lengths == 0] = random.normal(size=network[lengths == 0].shape)
    fusion = choose_fusion(members(network, told=told), queries, exclude_seen=False)
    assert fusion.newcomer_weights["told"] > 0.8 > 0.3 > fusion.weights["told"]
    lists = Shortlists(members(network, told=told), queries, exclude_seen=False)
    one = max(float(lists.gains({NETWORK: 1 - share, "told": share}).mean()) for share in np.linspace(0, 1, 21))
    assert fusion.ndcg > one + 0.02


@given(st.lists(st.integers(0, 500), min_size=1, max_size=9), st.floats(0, 1), st.floats(0, 1))
def test_weights_move_from_newcomers_to_the_well_known(lengths: list[int], few: float, many: float) -> None:
    found = weights_at({"a": many}, {"a": few}, np.sort(lengths))["a"]
    assert ((found >= min(few, many) - 1e-6) & (found <= max(few, many) + 1e-6)).all()
    steps = np.diff(found) * np.sign(many - few)
    assert (steps >= -1e-6).all()
    assert weights_at({"a": many}, {"a": few}, np.zeros(1, dtype=int))["a"] == pytest.approx(few)


def test_a_member_whose_scores_are_no_numbers_is_named() -> None:
    random = np.random.default_rng(3)
    queries = held_out(random)
    broken = hints(queries, random, 2)
    broken[:7, 3] = np.nan
    with pytest.raises(NightloomError, match=r"^graph: the scores of 7 of 200 queries hold NaN"):
        choose_fusion(members(hints(queries, random, 2), graph=broken), queries, exclude_seen=True)
    fused = fuse(
        {NETWORK: standard(hints(queries, random, 2).astype(np.float32)), "graph": standard(broken.astype(np.float32))}, {"graph": 0.5}
    )
    assert np.isnan(fused).sum() == 7  # so that a ranking of the fused scores is refused too


@pytest.mark.parametrize("queries", [1, 2, 5, 20])
@pytest.mark.parametrize("seed", range(5))
def test_a_handful_of_queries_gives_some_weights(monkeypatch: pytest.MonkeyPatch, queries: int, seed: int) -> None:
    """The prior is then stronger than all that they say together."""
    monkeypatch.setitem(globals(), "N_QUERIES", queries)
    random = np.random.default_rng(seed)
    few = held_out(random)
    recommender = members(hints(few, random, 0), noise=hints(few, random, 0), other=hints(few, random, 0.5))
    fusion = choose_fusion(recommender, few, exclude_seen=True)
    for weights in (fusion.weights, fusion.newcomer_weights):
        assert 0 <= sum(weights.values()) <= 1 + 1e-9
