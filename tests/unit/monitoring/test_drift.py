"""Drift of texts and scores from night to night: what a night keeps, how far nights are apart, and when that rings."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nightloom.core.ragged import offsets_of
from nightloom.core.recommender import Recommender
from nightloom.core.sequences import Histories, Queries
from nightloom.encoders.text import TextEncoder
from nightloom.evaluation.drift import DIRECTIONS, PLACES, POWERS, QUERIES, of_scores, of_texts
from nightloom.monitoring.alarms import judge
from nightloom.monitoring.course import past_nights
from nightloom.monitoring.days import Signal
from nightloom.monitoring.drift import LEAST, Kept, apart, drifts, moved
from nightloom.monitoring.page import render
from nightloom.monitoring.watch import Found, Watched
from tests.tiny_models import tiny_bert
from tests.unit.monitoring.test_monitoring import report

N_ITEMS = 40
QUIET, LATER = 20, 3
FIRST, SECOND = ("red", "old", "new", "sad", "big", "far", "wild", "late"), ("sea", "car", "war", "dog", "man", "sky", "road", "king")
ENGLISH = [f"the {a} and the {b}" for a in FIRST for b in SECOND]
CHINESE = [f"{a}的{b}" for a in "红旧新悲大远野晚" for b in "海车战狗人天路王"]


class Fixed(Recommender):
    """Scores that are drawn for a night, the same way each."""

    family = "fixed"

    def __init__(self, seed: int, scale: float, shift: float = 0.0) -> None:
        self.random, self.scale, self.shift, self.n_items = np.random.default_rng(seed), scale, shift, N_ITEMS

    def scores(self, histories: Histories) -> NDArray[np.float32]:
        return (self.shift + self.scale * self.random.normal(size=(len(histories), N_ITEMS))).astype(np.float32)

    def fit(self, *_: object) -> Fixed:
        raise NotImplementedError

    save = load = fit  # type: ignore[assignment]


def histories(offsets: NDArray[np.int64], items: NDArray[np.int32]) -> Histories:
    zeros = np.zeros(len(items), np.int64)
    return Histories(offsets, items, zeros, zeros.astype(np.int16), zeros == 0, np.zeros(len(offsets) - 1, np.int64))


def queries(many: int, seed: int = 0) -> Queries:
    random = np.random.default_rng(seed)
    lengths = random.integers(0, 4, many)
    events = random.integers(0, N_ITEMS, lengths.sum()).astype(np.int32)
    return Queries(
        np.arange(many), histories(offsets_of(lengths), events), np.arange(many + 1), random.integers(0, N_ITEMS, many).astype(np.int32)
    )


def sure(seed: int, scale: float, **more: float) -> NDArray[np.float64]:
    return np.array(of_scores(Fixed(seed, scale, **more), queries(400), exclude_seen=True, seed=0), dtype=np.float64)


def rings(nights: list[Kept], name: str) -> bool:
    (one,) = [signal for signal in drifts(nights) if signal.name == f"drift of {name}"]
    return judge(one.values, rises=one.rises, least=one.least).rings


def test_a_histogram_holds_every_text_and_every_query_asked() -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float16)
    vectors[3] = 0  # a text without any direction
    has_text = np.arange(50) != 7
    counts = np.array(of_texts(vectors, has_text))
    assert counts.shape == (DIRECTIONS, len(PLACES) + 1)
    assert (counts.sum(1) == 48).all()
    assert of_texts(vectors * 4, has_text) == of_texts(vectors, has_text)
    assert of_texts(np.zeros((4, 0), np.float32), np.ones(4, bool)) is None
    assert of_texts(vectors, np.zeros(50, bool)) is None
    assert of_texts(np.zeros((4, 8), np.float32), np.ones(4, bool)) is None, "without any direction there is nothing to draw"
    assert sure(1, 1.0).shape == (1, len(POWERS) + 1)
    asked = of_scores(Fixed(1, 1.0), queries(QUERIES + 500), exclude_seen=True, seed=0)
    assert asked is not None
    assert sum(asked[0]) == QUERIES
    assert of_scores(Fixed(1, 1.0), queries(0), exclude_seen=True, seed=0) is None


def test_a_probability_is_the_softmax_of_what_may_be_recommended() -> None:
    one = replace(queries(1), histories=histories(np.array([0, 1]), np.array([2], np.int32)))

    class Known(Fixed):
        def scores(self, histories: Histories) -> NDArray[np.float32]:
            return np.log(np.array([[0.06, 0.03, 9.0, 0.01]], np.float32))

    model = Known(0, 1.0)
    model.n_items = 4
    (counts,) = of_scores(model, one, exclude_seen=True, seed=0) or [[]]
    assert counts.index(1) == np.searchsorted(POWERS, np.log10(0.6))
    (counts,) = of_scores(model, one, exclude_seen=False, seed=0) or [[]]
    assert counts.index(1) == np.searchsorted(POWERS, np.log10(9 / 9.1))


def test_ranges_of_the_nights_before_are_compared() -> None:
    before = np.full(40, 25.0)
    assert apart(before, before) == pytest.approx(0, abs=1e-12)
    assert apart(before, 7 * before) < 0.001
    shifted = np.repeat([37.5, 12.5], 20)  # three quarters in the lower half: psi of (1/2, 1/2) and (3/4, 1/4)
    assert apart(before, shifted) == pytest.approx(0.25 * np.log(3), rel=0.02)
    assert apart(np.zeros(40), before) >= 0


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    return TextEncoder.load(str(tiny_bert(tmp_path_factory.mktemp("bert"))))


def texts(vectors: NDArray[np.float32]) -> Kept:
    return {"texts": np.array(of_texts(vectors, np.ones(len(vectors), bool)), dtype=np.float64)}


def test_texts_of_another_language_and_another_encoder_s_ring_and_new_ones_of_a_kind_do_not(encoder: TextEncoder, tmp_path: Path) -> None:
    english, chinese = encoder.encode(ENGLISH), encoder.encode(CHINESE)
    random = np.random.default_rng(0)
    order = random.permutation(len(english))
    growing = [texts(english[order[: 32 + night]]) for night in range(QUIET)]  # an item more each night
    assert not any(rings(growing[:night], "texts") for night in range(QUIET + 1))
    still = [texts(english)] * QUIET
    assert not rings([*still, *[texts(english[:-1])] * LATER], "texts"), "one item of many is gone, where never anything had changed"

    half = np.concatenate([english, chinese])
    assert rings([*growing, *[texts(half)] * LATER], "texts")
    other = TextEncoder.load(str(tiny_bert(tmp_path / "other", seed=5)))
    assert rings([*still, *[texts(other.encode(ENGLISH))] * LATER], "texts")


def test_scores_that_are_surer_than_before_ring_and_a_training_s_chance_does_not() -> None:
    quiet: list[Kept] = [{"scores": sure(night, 1.0)} for night in range(QUIET + LATER)]
    assert not any(rings(quiet[:night], "scores") for night in range(len(quiet) + 1))
    moved_all: list[Kept] = [{"scores": sure(night, 1.0, shift=50.0)} for night in range(LATER)]
    assert not rings([*quiet[:QUIET], *moved_all], "scores"), "all scores alike say the same"
    surer: list[Kept] = [{"scores": sure(night, 1.4)} for night in range(LATER)]
    assert rings([*quiet[:QUIET], *surer], "scores")
    assert not rings([*quiet[:QUIET], *surer, quiet[-1]], "scores"), "the newest night is as ever"


def test_a_night_without_figures_or_with_other_bins_is_left_out() -> None:
    known: Kept = {"scores": sure(0, 1.0)}
    other: Kept = {"scores": np.ones((1, 5))}
    found = {one.name.removeprefix("drift of "): one.values for one in drifts([{}, known, {}, other, known])}
    assert np.isnan(found["scores"][:4]).all()
    assert found["scores"][4] == pytest.approx(0, abs=1e-9)
    assert np.isnan(found["texts"]).all()
    assert [one.name for one in moved([known, known])] == ["scores"]
    assert moved([known, {}]) == []
    assert moved([]) == []


def test_a_step_below_the_least_is_no_news() -> None:
    still = np.zeros(30)
    assert not judge(np.append(still, [LEAST / 2] * LATER), rises=True, least=LEAST).rings
    assert judge(np.append(still, [LEAST * 2] * LATER), rises=True, least=LEAST).rings


def test_figures_come_from_the_nights_folders_and_are_drawn(tmp_path: Path) -> None:
    now = datetime(2026, 11, 30, 8, tzinfo=UTC)
    for day in range(4):
        report(tmp_path, f"2026112{day}-020000", now + timedelta(days=day))
        if day:  # the first is a night of before
            drift = {"scores": sure(day, 1.0).tolist(), "something newer": [[1]]}
            place = tmp_path / "nights" / "shop" / f"2026112{day}-020000" / "manifests" / "evaluate.json"
            place.parent.mkdir()
            place.write_text(json.dumps({"figures": {"drift": drift}}))
    nights = past_nights(tmp_path, "shop")
    assert [list(one.drift) for one in nights] == [[], ["scores"], ["scores"], ["scores"]]
    kept = [one.drift for one in nights]
    found: list[Signal] = [one for one in drifts(kept) if one.name == "drift of scores"]
    watched = [Watched(one, judge(one.values)) for one in found]
    assert np.isfinite(found[0].values).tolist() == [False, False, True, True]
    page = render(Found("shop", now, [], [], watched, nights, nights, [], [], moved(kept)))
    assert page.count("<polygon") == 1
    assert page.count("<polyline") == 2
    assert "distribution of scores" in page
