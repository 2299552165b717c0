"""shap's explainers over the re-ranker's features and over words of texts: values add up to what the model says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nightloom.core.sequences import Histories
from nightloom.explain.overview import segments
from nightloom.explain.reranker_features import draw_reranker, explain_reranker
from nightloom.explain.shap_plots import draw_segments
from nightloom.explain.title_tokens import draw_text, encoder_of, explain_text, worth_of_text
from nightloom.packaging.bundle import Bundle
from tests.serving_bundle import known_histories, serving_bundle
from tests.tiny_models import tiny_bert


def some(n: int) -> Histories:
    found = known_histories()
    return replace(found, request_time=found.times.max() + np.ones(len(found), np.int64)).take(np.arange(n)).packed()


def test_the_re_rankers_features_add_up_to_its_log_odds(tmp_path: Path) -> None:
    model = Bundle.load(serving_bundle(tmp_path / "bundle", reranker=True)).recommender
    histories = some(12)
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    found = explain_reranker(model, histories, seed=0)
    assert np.random.get_state()[1].tolist() == before, "shap seeds the global generator"  # noqa: NPY002
    features = model.reranker_features(histories)
    assert features is not None
    assert model.reranker is not None
    odds = model.reranker.log_odds(features)
    np.testing.assert_allclose(found.values.sum(1) + found.base_values, odds.max(1), atol=1e-4)
    np.testing.assert_array_equal(found.data, features[np.arange(12), odds.argmax(1)])
    assert found.values.shape[1] == features.shape[2] == len(found.feature_names)
    assert {"fused score", "score of network", "rank"} <= set(found.feature_names)
    assert np.abs(found.values).sum() > 0
    draw_reranker(found, tmp_path, {"few": np.arange(12) < 5, "many": np.arange(12) >= 5})
    for name in ("reranker", "reranker_segments"):
        assert (tmp_path / f"shap_{name}.png").stat().st_size > 5000


def test_scores_are_those_of_the_candidates_that_were_described(tmp_path: Path) -> None:
    model = Bundle.load(serving_bundle(tmp_path / "bundle", reranker=True)).recommender
    histories = some(5)
    features, scores = model.reranker_features(histories), model.scores(histories)
    assert features is not None
    assert model.reranker is not None
    odds = model.reranker.log_odds(features)
    nearest = np.abs(odds[:, :, None] - scores[:, None, :]).min(2)  # others may lie between: items of the history are no candidates
    assert nearest.max() < 1e-5


def test_without_a_re_ranker_there_is_nothing_to_explain(tmp_path: Path) -> None:
    assert explain_reranker(Bundle.load(serving_bundle(tmp_path / "bundle")).recommender, some(3), 0) is None


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle whose texts a language model has read."""
    home = tmp_path_factory.mktemp("reading")
    return Bundle.load(serving_bundle(home / "bundle", encoder=str(tiny_bert(home / "bert"))))


def test_words_add_up_to_what_the_text_adds(reading: Bundle, tmp_path: Path) -> None:
    encoder = encoder_of(reading)
    assert encoder is not None
    history, item = some(1), 7
    text = reading.catalogue["text"][item]
    found = explain_text(encoder, reading.recommender, history, item, text)
    worth = worth_of_text(encoder, reading.recommender, history, item)
    nothing, whole = float(found.base_values), worth([" ".join(text.split())])[0]
    assert found.values.sum() == pytest.approx(whole - nothing, abs=1e-4)
    assert "".join(found.data).split() == text.split()
    assert np.abs(found.values).max() > 1e-6
    from nightloom.serving.reasons.coalitions import log_softmax

    as_served = log_softmax(reading.recommender.scores(history), np.array([item]))[0, 0]
    assert whole == pytest.approx(as_served, abs=5e-3)  # the bundle keeps text vectors in half precision
    draw_text(found, tmp_path, 1, "Title $7")
    assert (tmp_path / "shap_words_1.png").stat().st_size > 5000


def test_without_its_language_model_no_words_are_told(tmp_path: Path) -> None:
    assert encoder_of(Bundle.load(serving_bundle(tmp_path / "bundle"))) is None


def test_the_re_rankers_values_are_those_of_shap_s_exact_explainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All walks of a few features: those that vary, the others held still."""
    import shap

    model = Bundle.load(serving_bundle(tmp_path / "bundle", reranker=True)).recommender
    features = model.reranker_features(some(3))
    assert features is not None
    assert model.reranker is not None
    features[:, :, 6:] = 0  # six features vary, so that all their coalitions are few
    monkeypatch.setattr(model, "reranker_features", lambda _: features)
    found = explain_reranker(model, some(3), seed=0)
    flat = features.reshape(-1, features.shape[2])
    background = flat[np.random.default_rng(0).choice(len(flat), 10, replace=False)]
    explainer = shap.explainers.Exact(
        lambda rows: model.reranker.log_odds(np.concatenate([rows, np.zeros((len(rows), flat.shape[1] - 6))], 1, dtype=np.float32)[None])[
            0
        ],
        shap.maskers.Independent(background[:, :6]),
    )
    exact = explainer(found.data[:, :6].astype(float))
    np.testing.assert_allclose(found.base_values, exact.base_values, atol=1e-4)
    assert np.abs(found.values[:, :6] - exact.values).mean() < 0.15 * np.abs(exact.values).mean()
    np.testing.assert_allclose(found.values[:, 6:], 0, atol=1e-9)


def test_segments_are_short_and_long_histories(tmp_path: Path) -> None:
    rows = [(0.0, {"id": float(at), "text": 1.0}) for at in range(12)]
    parts = segments(list(range(12)))
    assert {name: np.flatnonzero(mask).tolist() for name, mask in parts.items()} == {
        "histories up to 6 events": list(range(6)),
        "longer histories": list(range(6, 12)),
    }
    draw_segments(tmp_path, {name: [rows[at] for at in np.flatnonzero(mask)] for name, mask in parts.items()})
    for name in ("segments", "segments_fields"):
        assert (tmp_path / f"shap_{name}.png").stat().st_size > 5000
    assert segments([3] * 12) == {}
    draw_segments(tmp_path / "none", {})
