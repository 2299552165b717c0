"""The gate of a click head, on rows whose true probabilities are known."""

from __future__ import annotations

import numpy as np

from nightloom.config import PromotionConfig
from nightloom.promotion.click_gate import decide

RANDOM = np.random.default_rng(0)
TRUE = RANDOM.uniform(0.05, 0.6, 2000)
CLICKED = RANDOM.random(2000) < TRUE
WORSE = np.full(2000, CLICKED.mean())
CONFIG = PromotionConfig(resamples=100)
NO_FLOORS = PromotionConfig(resamples=100, must_beat_baselines=False)


def test_a_first_head_has_to_match_every_baseline() -> None:
    good = decide(CLICKED, TRUE, None, {"logistic": TRUE, "lightgbm": WORSE}, CONFIG)
    assert good.decision == "promote"
    assert good.reasons[0].startswith("No champion stands. The challenger's log-loss is")
    assert [(one.name, one.passed) for one in good.against] == [("logistic", True), ("lightgbm", True)]
    assert good.against[1].high < 0  # better for sure
    bad = decide(CLICKED, WORSE, None, {"logistic": TRUE}, CONFIG)
    assert bad.decision == "reject"
    assert bad.reasons[0].startswith("It may be worse than the margin allows: log-loss less that of logistic")
    assert decide(CLICKED, WORSE, None, {"logistic": TRUE}, NO_FLOORS).decision == "promote"
    assert "No baseline was fitted" in " ".join(decide(CLICKED, TRUE, None, {}, CONFIG).reasons)


def test_a_champion_decides_alone_and_baselines_do_not() -> None:
    assert decide(CLICKED, WORSE, WORSE, {"logistic": TRUE}, CONFIG).decision == "promote"
    lost = decide(CLICKED, WORSE, TRUE, {}, NO_FLOORS)
    assert lost.decision == "reject"
    assert lost.rows == 2000


def test_a_margin_and_few_rows_count() -> None:
    nearly = np.clip(TRUE * 1.02, 0, 0.99)
    assert decide(CLICKED, nearly, TRUE, {}, CONFIG).decision == "promote"
    assert decide(CLICKED, nearly, TRUE, {}, PromotionConfig(resamples=100, margin=0)).decision == "reject"
    few = decide(CLICKED[:40], WORSE[:40], TRUE[:40], {}, CONFIG)
    assert few.decision == "reject"  # forty rows show nothing, so they do not show that it is not worse
