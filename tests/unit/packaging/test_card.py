"""The model card is made from what the gate really decides."""

from __future__ import annotations

from dataclasses import asdict

import pandas as pd
import pytest

from nightloom.packaging.card import model_card
from nightloom.promotion.gate import decide
from tests.small_bundle import small_config

METRICS = {
    "nightloom": {"temporal": {"hr_at_10": 1.0, "ndcg_at_10": 0.9, "mrr_at_10": 0.8}},
    "popularity": {"temporal": {"hr_at_10": 0.5, "ndcg_at_10": 0.25}},
    "elsewhere": {"leave_one_out": {"hr_at_10": 0.1}},
}


def rows(rank: int) -> pd.DataFrame:
    users = [f"u{user}" for user in range(200)]
    return pd.DataFrame({"user_id": users, "item_id": "i1", "rank": rank, "slices": "new|users"}).astype({"rank": "Int32"})


@pytest.mark.parametrize("first", [True, False])
def test_card(first: bool) -> None:
    config = small_config("films")
    decision = decide(rows(1), None if first else rows(2), {"popularity": rows(5)}, config.promotion)
    assert decision.decision == "promote"
    tags = {"nightloom.data_hash": "abc"}
    card = model_card(config, METRICS, asdict(decision), tags, counts={"events": 12345}, licence="research only")
    assert card.startswith("# nightloom-films\n")
    assert "| nightloom | 1.0000 | 0.9000 | 0.8000 |" in card
    assert "| popularity | 0.5000 | 0.2500 |  |" in card
    assert "elsewhere" not in card
    assert all(f"- {reason}" in card for reason in decision.reasons)
    (baseline,) = decision.baselines
    assert f"| popularity | 200 | 1.0000 | 0.3869 | +0.6131 | {baseline.low:+.4f} to {baseline.high:+.4f} |" in card
    assert ("slice by slice" in card) is not first
    assert "- events: 12,345 rows\n- licence of the data: research only\n- data_hash: abc" in card
    assert "mlflow.pyfunc.load_model('models:/nightloom-films@champion')" in card
    assert card.isascii()


def test_card_without_extras() -> None:
    config = small_config("films")
    card = model_card(config, METRICS, asdict(decide(rows(1), None, {}, config.promotion)), {})
    assert "Against" not in card
    assert "licence" not in card
