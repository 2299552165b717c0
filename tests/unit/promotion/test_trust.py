"""Limits beside quality: each stops a challenger only where chance can not have made what stands against it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightloom.config import PromotionConfig, load_preset
from nightloom.evaluation.fairness import group_gaps
from nightloom.promotion.gate import Decision
from nightloom.promotion.trust import fidelity_limits, group_limits, reasons_compared, tail_limits, with_trust
from nightloom.runs.keys import TRAINING, ReadKeys

SHARE = st.floats(0, 1, allow_nan=False)


def gap(attribute: str = "sex", value: float = 0.05, low: float = 0.02, sure: float = 0.02) -> dict[str, Any]:
    return {"attribute": attribute, "gap": value, "low": low, "high": 2 * value, "sure": sure, "best": "F", "worst": "M", "groups": []}


def people(seed: int, shift: float, n: int = 60, noise: float = 0.2) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    own = np.clip(np.random.default_rng(7).normal(0.5, 0.2, n), 0, 1)  # people differ, and are the same for both
    return pd.DataFrame({"user_id": [f"u{one}" for one in range(n)], "cdcg": np.clip(own + shift + random.normal(0, noise, n), 0, 1)})


@given(low=SHARE, sure=SHARE, limit=SHARE, mean=st.floats(0.01, 1))
def test_a_gap_stands_against_it_only_where_the_interval_excludes_the_limit(low: float, sure: float, limit: float, mean: float) -> None:
    sure = min(low, sure)
    config = PromotionConfig(max_group_gap=limit)
    (found,) = group_limits([gap(value=1.0, low=low, sure=sure)], {"ndcg_at_10": mean}, config)
    assert found.passed == (sure / mean <= limit)
    judged = with_trust(Decision("promote", ("Better.",), "ndcg_at_10", "enabled", moves_anchor=True), [found])
    assert judged.decision == ("promote" if found.passed else "reject")
    assert judged.moves_anchor == found.passed
    assert (judged.reasons[0] == found.said) != found.passed
    assert ("gap of sex" in judged.guards) != found.passed


@given(low=SHARE, width=SHARE, limit=SHARE)
def test_the_tail_share_likewise(low: float, width: float, limit: float) -> None:
    high = min(low + width, 1)
    (found,) = tail_limits({"value": (low + high) / 2, "low": low, "high": high}, PromotionConfig(min_tail_share=limit))
    assert found.passed == (high >= limit)


def test_nothing_is_limited_where_the_config_says_nothing() -> None:
    config = PromotionConfig()
    assert group_limits([gap(sure=0.9)], {"ndcg_at_10": 0.1}, config) == []
    assert tail_limits({"value": 0.0, "low": 0.0, "high": 0.0}, config) == []
    assert tail_limits({}, PromotionConfig(min_tail_share=0.5)) == []
    assert fidelity_limits(people(0, 0.9), people(1, 0), PromotionConfig(fidelity_margin=None)) == []


def test_people_with_and_without_a_history_are_no_groups_to_be_made_equal() -> None:
    assert group_limits([gap("history", sure=0.9)], {"ndcg_at_10": 0.1}, PromotionConfig(max_group_gap=0.01)) == []


def test_a_decision_against_stays_against_whatever_holds() -> None:
    (found,) = group_limits([gap(sure=0.0)], {"ndcg_at_10": 0.1}, PromotionConfig(max_group_gap=0.5))
    judged = with_trust(Decision("reject", ("Worse.",), "ndcg_at_10", "enabled"), [found])
    assert (judged.decision, judged.reasons[0], judged.reasons[-1]) == ("reject", "Worse.", found.said)


@pytest.mark.parametrize("groups", [2, 6, 20])
def test_equal_groups_stand_against_it_in_few_nights(groups: int) -> None:
    """The best and the worst of twenty equal groups look far apart: the limit takes the choice into account."""
    vetoes = plain = 0
    for night in range(100):
        random = np.random.default_rng(night)
        users, group = np.arange(600), np.arange(600) % groups
        values = (random.random(600) < 0.3).astype(float)
        masks = {f"job={one}": group == one for one in range(groups)}
        found = group_gaps(values, users, masks, np.ones(600, np.int64), confidence=0.95, resamples=200, seed=0)
        (limit,) = group_limits(found, {"ndcg_at_10": values.mean()}, PromotionConfig(max_group_gap=0.0))
        vetoes += not limit.passed
        plain += limit.low > 0
    assert vetoes <= 8
    if groups == 20:
        assert plain > 50  # what the interval of the two groups alone would say


def test_a_group_that_is_served_far_worse_is_seen() -> None:
    random, group = np.random.default_rng(0), np.arange(900) % 3
    values = np.clip(random.normal(0.3 - 0.2 * (group == 2), 0.1), 0, 1)
    found = group_gaps(values, np.arange(900), {f"job={one}": group == one for one in range(3)}, np.ones(900, np.int64),
                       confidence=0.95, resamples=500, seed=0)  # fmt: skip
    (limit,) = group_limits(found, {"ndcg_at_10": values.mean()}, PromotionConfig(max_group_gap=0.5))
    assert not limit.passed
    assert "surely above the limit of 50%" in limit.said


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), shift=st.floats(-0.3, 0.3), margin=st.floats(0, 0.3), order=st.integers(0, 100))
def test_fidelity_stands_against_it_only_where_it_surely_fell_by_more_than_the_margin(
    seed: int, shift: float, margin: float, order: int
) -> None:
    mine, its = people(seed, shift), people(seed + 1, 0.0)
    config = PromotionConfig(fidelity_margin=margin, resamples=200)
    (found,) = fidelity_limits(mine, its, config)
    assert found.value == pytest.approx((mine["cdcg"] - its["cdcg"]).mean())
    assert found.low <= found.value <= found.high
    assert found.passed == (found.low <= margin)
    (again,) = fidelity_limits(mine.sample(frac=1, random_state=order), its.sample(frac=1, random_state=order + 1), config)
    assert again == found  # paired by user, in whatever order
    if found.value <= margin:
        assert found.passed


def test_fidelity_that_is_gone_is_seen_and_a_few_people_say_nothing() -> None:
    (found,) = fidelity_limits(people(0, 0.3), people(1, 0.0), PromotionConfig())
    assert not found.passed
    assert "Reasons hold less than the champion's" in found.said
    assert "60 users" in found.said
    assert fidelity_limits(people(0, 0.3).head(5), people(1, 0.0), PromotionConfig()) == []
    (same,) = fidelity_limits(people(0, 0.0), people(0, 0.0), PromotionConfig())
    assert (same.value, same.passed) == (0, True)


@pytest.mark.parametrize(
    ("mine", "its", "why"),
    [(0, 60, "measured for nobody"), (60, 0, "serving artefact could not be opened"), (60, 5, "fewer than 6 of 60 users")],
)
def test_what_could_not_be_compared_is_said(mine: int, its: int, why: str) -> None:
    limits, notes = reasons_compared(people(0, 0.3).head(mine), people(1, 0.0).head(its), PromotionConfig())
    assert limits == []
    judged = with_trust(Decision("promote", ("Better.",), "ndcg_at_10", "enabled"), limits, notes)
    assert judged.decision == "promote"
    assert judged.reasons[0] == "Better."
    assert judged.reasons[-1].startswith("Reasons were not compared with the champion's: ")
    assert why in judged.reasons[-1]
    assert reasons_compared(people(0, 0.3).head(mine), people(1, 0.0).head(its), PromotionConfig(fidelity_margin=None)) == ([], ())
    assert reasons_compared(people(0, 0.3), people(1, 0.0), PromotionConfig())[1] == ()


@pytest.mark.parametrize("preset", ["movies-small", "movies", "shop"])
def test_limits_of_the_presets_train_nothing_anew(preset: str) -> None:
    config = load_preset(preset)
    assert config.promotion.max_group_gap is not None
    assert config.promotion.min_tail_share is not None
    without = config.model_copy(update={"promotion": PromotionConfig()})
    assert ReadKeys(config, *TRAINING).values == ReadKeys(without, *TRAINING).values
