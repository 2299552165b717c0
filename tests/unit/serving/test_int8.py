"""An artefact in int8: the weights are those that the gate measured, and multiplying them in int8 changes little."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nightloom.core.errors import NightloomError
from nightloom.core.int8_rows import rounded_rows, whole_rows
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.rounding import rounded
from nightloom.packaging.serving_artefact import write_serving
from nightloom.packaging.serving_format import NETWORK
from nightloom.packaging.serving_precision import LADDER, Precisions
from nightloom.serving.items.catalogue import LiveCatalogue
from nightloom.serving.items.new_items import NewItem
from nightloom.serving.model.engine import Engine
from nightloom.serving.model.int8_product import Packed, has_vnni, in_bytes, multiply_int8, packed
from nightloom.serving.model.products import product
from nightloom.serving.model.rows import Int8Rows
from nightloom.serving.model.warm import check
from nightloom.serving.reasons.reasons import reasons
from tests.serving_bundle import N_ITEMS, START, serving_bundle, some_query

LENGTHS = (0, 1, 50, 199, 400)
CLOSE = 1e-4
SMALL = LADDER[:-1]

needs_vnni = pytest.mark.skipif(not has_vnni(), reason="the processor multiplies no int8")


@pytest.fixture(scope="module", params=SMALL, ids=lambda one: f"{one.encoder}-{one.vectors}")
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A bundle with both heads, what it answers when it is rounded, and its artefact."""
    folder = tmp_path_factory.mktemp("small")
    bundle = Bundle.load(serving_bundle(folder / "bundle", reranker=True, labels=True, penalty=0.3))
    precisions: Precisions = request.param
    write_serving(bundle.folder, folder / "serving", sequence={"encoder": precisions.encoder, "vectors": precisions.vectors})
    bundle.recommender = rounded(bundle.recommender, precisions)
    return SimpleNamespace(bundle=bundle, folder=folder / "serving", precisions=precisions)


def test_rounded_weights_answer_as_the_rounded_bundle(small: SimpleNamespace) -> None:
    engine = Engine.open(small.folder, arithmetic="float32")
    check(engine)
    for events in LENGTHS:
        query = some_query(events)
        (wanted,) = small.bundle.recommend([query], N_ITEMS)
        items, scores = engine.recommend(query, N_ITEMS)
        expected = {engine.item_index[item]: score for item, score in wanted}
        np.testing.assert_allclose(scores, [expected[item] for item in items.tolist()], atol=CLOSE)


@needs_vnni
def test_multiplying_in_int8_leaves_the_lists(small: SimpleNamespace) -> None:
    engine, exact = Engine.open(small.folder), Engine.open(small.folder, arithmetic="float32")
    assert engine.rounds == (small.precisions.encoder == "int8")
    check(engine)
    kept = []
    for seed in range(40):
        query = some_query(LENGTHS[seed % len(LENGTHS)], seed)
        lists = [one.recommend(query, 20)[0] for one in (engine, exact)]
        kept.append(len(np.intersect1d(*lists)) / 20)
    assert np.mean(kept) >= 0.97


def test_stored_users_answer_as_histories_that_are_sent(small: SimpleNamespace) -> None:
    queries = {f"u{events}": some_query(events, friends=0) for events in LENGTHS}
    engine = Engine.open(small.folder, stored=queries.__getitem__)
    for name, query in queries.items():
        items, scores = engine.recommend(query, 20)
        for _ in range(2):  # read, then from what is kept
            again, same = engine.recommend_user(name, 20, now=START + 100)
            np.testing.assert_array_equal(again, items)
            np.testing.assert_allclose(same, scores, atol=1e-5)


def test_items_that_come_by_day_are_rounded_alike(small: SimpleNamespace) -> None:
    engine = Engine.open(small.folder)
    dense = engine.put_item(NewItem("new", {"price": 3.0}))
    vectors, bits = engine.catalogue.vectors.copy(), isinstance(engine.catalogue.rows, Int8Rows)
    assert bits == (small.precisions.vectors == "int8")
    assert len(vectors) == N_ITEMS + 1
    exact = engine._maker.vector(NewItem("new", {"price": 3.0}))
    wanted = whole_rows(*rounded_rows(exact)) if bits else exact
    np.testing.assert_array_equal(vectors[dense], wanted)
    engine.put_item(NewItem("new", {"price": 9.0}))
    assert not np.array_equal(engine.catalogue.vectors[dense], vectors[dense])
    assert dense in engine.recommend(some_query(50), N_ITEMS + 1)[0]
    assert engine.similar([dense], 5)[0].tolist() != [dense]


def test_reasons_and_probabilities_read_it(small: SimpleNamespace) -> None:
    engine = Engine.open(small.folder)
    query = some_query(12)
    items = engine.recommend(query, 3)[0]
    game = engine.coalitions(query)
    (scores,) = game.scores(np.ones((1, game.events), dtype=np.bool_))
    asked, found = engine.recommend(query, N_ITEMS, exclude_seen=False)
    np.testing.assert_allclose(scores[asked], found, atol=CLOSE)
    assert len(reasons(game, items, engine.estimator, np.zeros(0, dtype=np.int32))) == 3
    (wanted,) = small.bundle.probabilities([query], [[engine.item_ids[item] for item in items]])
    np.testing.assert_allclose(engine.label_probabilities(query, items), wanted, atol=0.02)


def test_an_artefact_of_other_weights_is_refused(small: SimpleNamespace) -> None:
    engine = Engine.open(small.folder)
    engine.net = replace_matrices(engine)
    with pytest.raises(NightloomError, match="answered otherwise"):
        check(engine)


def replace_matrices(engine: Engine) -> object:
    """The network with the item vectors' order turned, as no rounding would."""
    engine.catalogue = LiveCatalogue(
        engine.item_ids, engine.catalogue.vectors[::-1].copy(), engine.catalogue.mean, engine.catalogue.covariance
    )
    engine._ranker.catalogue = engine.catalogue
    return engine.net


@needs_vnni
@pytest.mark.parametrize("rows", [1, 7, 8, 21])
@pytest.mark.parametrize(("inner", "columns"), [(16, 16), (64, 128), (6, 20)])
def test_sums_are_exact(rows: int, inner: int, columns: int) -> None:
    """Whole numbers come out as they should, whatever the shape."""
    random = np.random.default_rng(inner)
    whole = random.integers(-127, 128, (2, inner, columns)).astype(np.int8)
    x = random.integers(-127, 128, (rows, inner)).astype(np.float32)
    x[:, 0] = 127  # the scale of a row is then 1
    scales = np.ones((2, columns), np.float32)
    found = np.empty((rows, columns), np.float32)
    for block in range(2):
        multiply_int8(in_bytes(x), packed(whole, scales), block, found)
        np.testing.assert_array_equal(found, x @ whole[block].astype(np.float32))


@needs_vnni
def test_rounded_products_are_near(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x, w = random.normal(size=(51, 64)).astype(np.float32), random.normal(size=(1, 64, 256)).astype(np.float32)
    x[3] = 0
    whole, scales = rounded_rows(w.swapaxes(1, 2))
    found, wanted = np.empty((51, 256), np.float32), np.empty((51, 256), np.float32)
    multiply_int8(in_bytes(x), packed(np.ascontiguousarray(whole.swapaxes(1, 2)), scales), 0, found)
    product(x, w[0], wanted)
    assert np.linalg.norm(found - wanted) < 0.015 * np.linalg.norm(wanted)
    assert (found[3] == 0).all()


def test_the_small_file_is_small(small: SimpleNamespace, tmp_path: Path) -> None:
    write_serving(small.bundle.folder, tmp_path / "single")
    assert (small.folder / NETWORK).stat().st_size < (tmp_path / "single" / NETWORK).stat().st_size
    kept = Engine.open(small.folder).artefact.manifest.sequence
    assert kept == {"encoder": small.precisions.encoder, "vectors": small.precisions.vectors}
    assert isinstance(Engine.open(tmp_path / "single").net.kv, np.ndarray)
    assert isinstance(Engine.open(small.folder).net.kv, Packed) == (small.precisions.encoder == "int8" and has_vnni())
