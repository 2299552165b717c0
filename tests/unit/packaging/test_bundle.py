import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from nightloom.core.errors import InputError
from nightloom.core.queries import Query
from nightloom.core.sequences import Histories
from nightloom.data.preparation.items import FeatureSpec
from nightloom.encoders.vectors import Vectors
from nightloom.models.scorers.registry import CLASSES, fit_scorers
from nightloom.models.sequential.content_fusion import ItemContent
from nightloom.models.sequential.network import SequentialNetwork, Shape
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.write import write_bundle

N_ITEMS, TEXT_DIM = 10, 6


def catalogue() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "item_id": [f"i{row}" for row in range(N_ITEMS)],
            "fruit": ["apple", "pear"] * (N_ITEMS // 2),
            "price": np.arange(N_ITEMS, dtype=float),
            "text": [f"fruit {row}" for row in range(N_ITEMS)],
        }
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    from nightloom.config import ModelConfig

    source = tmp_path / "prepared"
    source.mkdir()
    items = catalogue()
    items.to_parquet(source / "items.parquet", index=False)
    spec = FeatureSpec.fit(items, {"fruit": "category", "price": "number"})
    spec.save(source / "feature_spec.json")
    (source / "meta.json").write_text(json.dumps({"event_types": ["buy"], "has_time": True}))
    torch.manual_seed(0)
    text = torch.randn(N_ITEMS, TEXT_DIM).half().float().numpy()
    config = ModelConfig(dim=8, blocks=1, heads=2, max_history=6)
    content = ItemContent.build(spec.encode(items), text, np.ones(N_ITEMS, dtype=bool), np.arange(1, N_ITEMS + 1))
    shape = Shape(TEXT_DIM, spec.n_codes, content.numbers.shape[1], N_ITEMS, 1, True)
    net = SequentialNetwork(config, shape)
    with torch.no_grad():
        net.fusion.whiten.fit(content.text)
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    scorers = fit_scorers([*CLASSES], Histories.of_items([[0, 1, 2, 3], [5, 6, 7]]), content)
    trained = SequentialRecommender(config, shape, net, content, scorers, dict.fromkeys(CLASSES, 0.1))
    write_bundle(trained, source, tmp_path / "bundle")
    loaded = Bundle.load(tmp_path / "bundle")
    asked = Histories.of_items([[0, 1], [], [9]])
    np.testing.assert_array_equal(loaded.recommender.scores(asked), trained.scores(asked))
    return loaded


def test_it_answers_the_same_somewhere_else(bundle: Bundle, tmp_path: Path) -> None:
    asked = Histories.of_items([[0, 1], [], [9]])
    expected = bundle.recommender.scores(asked)
    moved = tmp_path / "elsewhere"
    shutil.move(tmp_path / "bundle", moved)
    shutil.rmtree(tmp_path / "prepared")
    loaded = Bundle.load(moved)
    np.testing.assert_array_equal(loaded.recommender.scores(asked), expected)
    pd.testing.assert_frame_equal(loaded.items, catalogue())


def test_recommendations_are_named_and_unknown_items_skipped(bundle: Bundle) -> None:
    answers = bundle.recommend([Query(["i0", "no such item", "i1"]), Query(["i0", "i1"]), Query()], 4)
    assert [item for item, _ in answers[0]] == [item for item, _ in answers[1]]
    assert [len(one) for one in answers] == [4, 4, 4]
    assert not {"i0", "i1"} & {item for item, _ in answers[0]}
    scores = [score for _, score in answers[2]]
    assert scores == sorted(scores, reverse=True)


def test_seen_items_may_come_back_when_asked_for(bundle: Bundle) -> None:
    everything = [Query([f"i{row}" for row in range(N_ITEMS)])]
    assert bundle.recommend(everything, 3) == [[]]
    assert len(bundle.recommend(everything, 3, exclude_seen=False)[0]) == 3


def test_items_that_are_not_allowed_never_come_back(bundle: Bundle) -> None:
    queries = [Query(["i0", "i1"]), Query()]
    whole = bundle.recommend(queries, N_ITEMS)
    allowed = np.isin(bundle.item_ids, ["i1", "i2", "i4"])
    answers = bundle.recommend(queries, N_ITEMS, allowed=allowed)
    for one, all_of_them, kept in zip(answers, whole, ({"i2", "i4"}, {"i1", "i2", "i4"}), strict=True):
        assert [item for item, _ in one] == [item for item, _ in all_of_them if item in kept]
    by_query = bundle.recommend(queries, N_ITEMS, allowed=np.stack([allowed, ~allowed]))
    assert by_query[0] == answers[0]
    assert not {"i1", "i2", "i4"} & {item for item, _ in by_query[1]}
    assert bundle.recommend(queries, 3, allowed=np.zeros(N_ITEMS, dtype=bool)) == [[], []]
    with pytest.raises(InputError, match=r"allowed: its shape is \(3,\)"):
        bundle.recommend(queries, 3, allowed=np.ones(3, dtype=bool))


def test_the_time_of_the_request_counts(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nightloom.core.queries.time.time", lambda: 1e8)
    soon, late, unsaid = (bundle.recommend([Query(["i0", "i1"], [100, 200], request_time=at)], 3) for at in (201, 10**8, None))
    assert soon != late
    assert unsaid == late


def test_onto_another_catalogue_known_items_score_as_before(bundle: Bundle) -> None:
    items = catalogue().iloc[[7, 2, 0, 5]].reset_index(drop=True)
    new = pd.DataFrame({"item_id": ["new"], "fruit": ["pear"], "price": [3.0], "text": ["a new pear"]})
    items = pd.concat([items, new], ignore_index=True)
    text, mask = np.ones((5, TEXT_DIM), dtype=np.float32), np.array([False, True, True, True, True])
    moved = bundle.reindex(items, Vectors.of_text(text, mask))
    here = bundle.recommender.network_scores(Histories.of_items([[2, 0]]))[0]
    there = moved.network_scores(Histories.of_items([[1, 2]]))[0]
    np.testing.assert_allclose(there[:4], here[[7, 2, 0, 5]], rtol=1e-4, atol=1e-5)
    scores = moved.scores(Histories.of_items([[1, 2], []]))
    assert scores.shape == (2, 5)
    assert np.isfinite(scores).all()


def test_onto_reads_new_items_by_text_and_attributes(bundle: Bundle) -> None:
    items = pd.DataFrame(
        {"item_id": ["a", "b", "c"], "fruit": ["pear", "pear", "apple"], "price": [3.0, 3.0, 3.0], "text": ["x", "y", "z"]}
    )
    text = np.zeros((3, TEXT_DIM), dtype=np.float32)
    vectors = bundle.reindex(items, Vectors.of_text(text, np.ones(3, dtype=bool))).item_vectors()
    torch.testing.assert_close(vectors[0], vectors[1])
    assert not torch.allclose(vectors[0], vectors[2])
    text[1] += 1
    vectors = bundle.reindex(items, Vectors.of_text(text, np.ones(3, dtype=bool))).item_vectors()
    assert not torch.allclose(vectors[0], vectors[1])
    for unreadable in (None, Vectors.of_text(np.zeros((3, TEXT_DIM + 1), dtype=np.float32), np.ones(3, dtype=bool))):
        without = bundle.reindex(items, unreadable)
        assert not without.content.has_text.any()


def test_friends_count(bundle: Bundle) -> None:
    alone, unsaid, with_friends = (
        bundle.recommend([Query(["i0"], **said)], 9)[0] for said in ({"friends": []}, {}, {"friends": [["i0", "i8"], ["i8", "unknown"]]})
    )
    assert alone == unsaid
    assert dict(with_friends)["i8"] > dict(alone)["i8"]
