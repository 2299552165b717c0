"""Candidates of a large catalogue hold all that an exact scan finds, whatever is filtered, and whatever came by day."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nightloom.core.int8_rows import rounded_rows
from nightloom.core.moments import VectorMoments
from nightloom.core.sequences import Histories
from nightloom.models.scorers.als import ALS
from nightloom.serving.items.catalogue import LiveCatalogue
from nightloom.serving.model import retrieval
from nightloom.serving.model.cells import Cells
from nightloom.serving.model.engine import Engine
from nightloom.serving.model.members import Factors, Friends, Graph, ItemEdges, Member, Popularity, Repeats
from nightloom.serving.model.penalty import Penalty
from nightloom.serving.model.ranker import Ranker
from nightloom.serving.model.retrieval import Retrieval
from nightloom.serving.model.rows import Int8Rows
from nightloom.serving.model.scoring import moments, usable
from nightloom.serving.model.sparse_scores import SparseScorer
from tests.serving_bundle import N_ITEMS, some_query

N, DIM, DEGREE = 20_000, 16, 20
SETTINGS = {"reach": 3, "decay": 0.7, "backward": 0.5, "recency": 0.7, "memory": 32}


GROUPS = 60


def clustered(group: np.ndarray, dim: int = DIM, seed: int = 1) -> np.ndarray:
    """Vectors that lie together, as learned ones do, one for each item of a group."""
    random = np.random.default_rng([seed, dim])
    centres = random.normal(size=(GROUPS, dim))
    return (centres[group] + 0.4 * np.random.default_rng(len(group)).normal(size=(len(group), dim))).astype(np.float32)


def members_of(random: np.random.Generator, group: np.ndarray) -> dict[str, Member]:
    n = len(group)
    counts = random.geometric(0.02, n) - 1
    counts[:50] = 0  # items that edges and popularity know nothing of
    targets = random.integers(50, n, n * DEGREE).astype(np.int32)
    edges = {
        "offsets": np.arange(n + 1, dtype=np.int64) * DEGREE,
        "targets": targets,
        "weights": random.random(n * DEGREE).astype(np.float32),
    }
    rows = {**edges, "popularity": counts}
    als = ALS(factors=8)
    als._keep(clustered(group, 8), counts)
    return {
        "graph": Graph({**rows, "seen": counts}, SETTINGS),
        "cooccurrence": ItemEdges(rows, SETTINGS),
        "popularity": Popularity(counts, np.zeros(n, np.float32)),
        "repeats": Repeats(),
        "friends": Friends(),
        "als": Factors({"vectors": als.vectors, "gram": als.gram}, {name: getattr(als, name) for name in ALS.settings}),
    }


@pytest.fixture(params=["float32", "int8"])
def made(request: pytest.FixtureRequest) -> SimpleNamespace:
    """The same catalogue ranked whole, and by candidates."""
    random = np.random.default_rng(0)
    group = random.integers(0, GROUPS, N)
    vectors = clustered(group)
    rows = vectors if request.param == "float32" else Int8Rows(*rounded_rows(vectors))
    found = VectorMoments(vectors)
    catalogue = LiveCatalogue([f"i{item}" for item in range(N)], rows, found.mean, found.covariance)
    members = members_of(random, group)
    weights = {"graph": 0.1, "cooccurrence": 0.05, "popularity": 0.1, "repeats": 0.02, "friends": 0.03, "als": 0.2}
    exact, ranker = (Ranker(catalogue, members, weights, weights, None) for _ in range(2))
    people = [liking(random, group, vectors) for _ in range(100)]
    trials = people[:50]
    ranker.retrieval = Retrieval(catalogue, members, weights, trials)
    parts = {"catalogue": catalogue, "members": members, "weights": weights, "trials": trials}
    return SimpleNamespace(exact=exact, ranker=ranker, people=people[50:], **parts)


def liking(random: np.random.Generator, group: np.ndarray, vectors: np.ndarray) -> tuple[Histories, np.ndarray]:
    """Someone who likes two groups of items."""
    items = random.choice(np.flatnonzero(np.isin(group, random.integers(0, GROUPS, 2))), int(random.integers(3, 40)))
    return Histories.of_items([items.tolist()]), vectors[items].mean(0)


def ask(
    ranker: Ranker, histories: Histories, user: Any, allowed: Any = None, k: int = 20, lift: Any = None
) -> tuple[list[int], np.ndarray]:
    items, scores = ranker.rank(histories, user, k, True, allowed, None, lift)
    return items.tolist(), scores


def test_the_index_finds_what_a_scan_finds(made: SimpleNamespace) -> None:
    found = made.ranker.retrieval
    assert found.finds
    cells, vectors = Cells(made.catalogue.vectors), made.catalogue.vectors
    kept = []
    for _, user in made.people:
        best = np.argpartition(-(vectors @ user), 100)[:100]
        kept.append(len(np.intersect1d(cells.nearest(user, 1000, 0.2), best)))
        everything = cells.nearest(user, 1000, 1.0)
        assert len(np.intersect1d(everything, best)) >= 99  # int8
    assert np.mean(kept) >= 99


@pytest.mark.parametrize("share", [None, 0.5, 0.1, 0.01, 0.001])
def test_lists_are_those_of_the_whole_catalogue(made: SimpleNamespace, share: float | None) -> None:
    same, random = [], np.random.default_rng(5)
    for histories, user in made.people:
        allowed = None if share is None else random.random(N) < share
        wanted, scores = ask(made.exact, histories, user, allowed)
        items, found = ask(made.ranker, histories, user, allowed)
        same.append(len(set(items) & set(wanted)) / max(len(wanted), 1))
        assert len(items) == len(wanted)
        if items == wanted:
            np.testing.assert_allclose(found, scores, atol=1e-5)
    assert np.mean(same) >= (0.99 if share is None or share > 0.1 else 1.0)


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_lists_with_a_popularity_penalty_are_those_of_the_whole_catalogue(made: SimpleNamespace, strength: float) -> None:
    logs = np.log1p(made.members["popularity"]._counts.array)
    penalty = Penalty((strength * (logs - logs.mean()) / logs.std()).astype(np.float32), 0.0)
    exact, ranker = (Ranker(made.catalogue, made.members, made.weights, made.weights, None, penalty) for _ in range(2))
    plain = made.ranker.retrieval
    ranker.retrieval = Retrieval(made.catalogue, made.members, made.weights, made.trials, penalty)
    assert ranker.retrieval.finds
    same, without, moved = [], [], 0
    for histories, user in made.people:
        wanted, scores = ask(exact, histories, user)
        items, found = ask(ranker, histories, user)
        same.append(len(set(items) & set(wanted)) / len(wanted))
        if items == wanted:
            np.testing.assert_allclose(found, scores, atol=1e-5)
        moved += wanted != ask(made.exact, histories, user)[0]
        ranker.retrieval, kept = plain, ranker.retrieval
        without.append(len(set(ask(ranker, histories, user)[0]) & set(wanted)) / len(wanted))
        ranker.retrieval = kept
    assert np.mean(same) >= 0.99
    assert moved > len(made.people) / 2
    assert np.mean(without) <= np.mean(same), "an index that knows no penalty finds no more"


def test_moments_are_those_of_the_whole_table(made: SimpleNamespace) -> None:
    histories = made.people[0][0]
    for name, member in made.members.items():
        table = np.empty(N, np.float32)
        member.score(histories, table)
        mean, std, lowest = moments(table)
        scorer = SparseScorer(member)
        found = scorer.of(histories, N)
        assert found.line[0] == pytest.approx(mean, rel=1e-5, abs=1e-9), name
        assert 1 / found.line[1] == pytest.approx(1 / usable(mean, std), rel=1e-4), name
        if np.isinf(table).any():
            assert found.line[2] == pytest.approx(lowest, abs=1e-6), name
        pool = np.unique(np.concatenate([np.arange(0, N, 7), found.items]))
        np.testing.assert_allclose(scorer.at(found, pool, N), table[pool], rtol=1e-5, atol=1e-6)


def test_an_item_that_came_is_found_at_once(made: SimpleNamespace) -> None:
    histories, user = made.people[0]
    best = made.catalogue.vectors[np.argmax(made.catalogue.vectors @ user)] * 20
    dense, _ = made.catalogue.put("new", best)
    for member in made.members.values():
        member.append()
    (items, scores), (wanted, expected) = ask(made.ranker, histories, user), ask(made.exact, histories, user)
    assert items[0] == wanted[0] == dense
    assert items == wanted
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    made.catalogue.remove("new")
    assert dense not in ask(made.ranker, histories, user)[0]


def test_an_item_that_becomes_popular_is_a_candidate(made: SimpleNamespace) -> None:
    histories, user = made.people[1]
    item, popularity, found = int(np.argmin(made.catalogue.vectors @ user)), made.members["popularity"], made.ranker.retrieval
    weights, everything = np.full(7, 1 / 7, np.float32), np.ones(N, dtype=np.bool_)
    asked = (histories, user, weights, everything, np.zeros(0, np.int64), 20)
    assert item not in found.scored(*asked).pool
    for _ in range(100_000):
        popularity.count(item, 0, 1)
    found.counted(item)
    assert item in found.scored(*asked).pool
    assert ask(made.ranker, histories, user)[0] == ask(made.exact, histories, user)[0]


def test_a_busy_day_makes_no_more_candidates(made: SimpleNamespace) -> None:
    """Every other item has an event, and some of few events have many: the index learns of it."""
    random, popularity, found = np.random.default_rng(3), made.members["popularity"], made.ranker.retrieval
    weights, everything = np.full(7, 1 / 7, np.float32), np.ones(N, dtype=np.bool_)
    asked = (*made.people[1], weights, everything, np.zeros(0, np.int64), 20)
    before = len(found.scored(*asked).pool)
    for item in random.permutation(N)[: N // 2].tolist():
        for _ in range(int(random.integers(1, 4))):
            popularity.count(item, 0, 1)
        found.counted(item)
    assert len(found.scored(*asked).pool) < before + 100
    same = [ask(made.ranker, *one)[0] == ask(made.exact, *one)[0] for one in made.people]
    assert np.mean(same) >= 0.95


def test_what_a_rule_lifts_is_found(made: SimpleNamespace) -> None:
    histories, user = made.people[2]
    item = int(np.argmin(made.catalogue.vectors @ user))
    lift = np.zeros(N, np.float32)
    lift[item] = 1000
    assert ask(made.ranker, histories, user, lift=lift)[0][0] == ask(made.exact, histories, user, lift=lift)[0][0] == item


def test_long_lists_are_made_of_everything(made: SimpleNamespace) -> None:
    histories, user = made.people[3]
    assert ask(made.ranker, histories, user, k=5000)[0] == ask(made.exact, histories, user, k=5000)[0]


def test_vectors_without_structure_are_scanned_whole() -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(N, 64)).astype(np.float32)
    found = VectorMoments(vectors)
    catalogue = LiveCatalogue([f"i{item}" for item in range(N)], vectors, found.mean, found.covariance)
    users = random.normal(size=(60, 64)).astype(np.float32)
    made = Retrieval(catalogue, {}, {}, [(Histories.of_items([[1]]), user) for user in users[:50]])
    assert (made.finds, made.share) == (False, 1.0)
    exact, ranker = (Ranker(catalogue, {}, {}, {}, None) for _ in range(2))
    ranker.retrieval = made
    for user in users[50:]:
        histories = Histories.of_items([[1, 2, 3]])
        assert ask(ranker, histories, user)[0] == ask(exact, histories, user)[0]


@pytest.mark.parametrize("said", [{"reranker": True, "labels": True}, {"reranker": True, "penalty": 2.0}, {"penalty": 2.0}], ids=str)
def test_an_engine_takes_it_above_a_size(pairs: Any, monkeypatch: pytest.MonkeyPatch, said: dict[str, Any]) -> None:
    """With all scorers, both heads, a penalty, events and items by day the answers stay those of a scan."""
    _, exact = pairs(**said)
    assert exact._ranker.retrieval is None
    monkeypatch.setattr("nightloom.serving.model.ranker.MOST", 1)
    monkeypatch.setattr(retrieval, "CANDIDATES", 60)
    monkeypatch.setattr(retrieval, "POPULAR", 10)
    small = Engine.open(exact.artefact.folder, large=N_ITEMS - 1)
    plain = Engine.open(exact.artefact.folder, large=N_ITEMS)
    assert small._ranker.retrieval is not None
    assert plain._ranker.retrieval is None
    for step in range(20):
        query = some_query((0, 1, 12, 50)[step % 4], step)
        (items, scores), (wanted, expected) = small.recommend(query, 10), plain.recommend(query, 10)
        assert items.tolist() == wanted.tolist()
        np.testing.assert_allclose(scores, expected, atol=1e-4)
        for engine in (small, plain):
            engine.apply("u1", f"i{step}", 1, 1_700_000_000 + step, positive=True)
