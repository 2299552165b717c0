"""The model card is made from what the gate really decides."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from nightloom.core.attacked import SEARCH
from nightloom.packaging.card import model_card
from nightloom.packaging.data_card import data_card
from nightloom.promotion.gate import decide
from tests.sample_reports import HOSTILE
from tests.small_bundle import small_config

METRICS = {
    "nightloom": {"streaming": {"hr_at_10": 1.0, "ndcg_at_10": 0.9, "mrr_at_10": 0.8}},
    "popularity": {"streaming": {"hr_at_10": 0.5, "ndcg_at_10": 0.25}},
    "elsewhere": {"leave_one_out": {"hr_at_10": 0.1}},
}
TRAINING = {
    "weights": {"graph": 0.25, "popularity": 0.05},
    "validation_alone": {"network": 0.3, "graph": 0.2, "popularity": 0.1, "friends": 0.01},
    "reranker": {"kept": True, "gain": 0.02, "error": 0.004, "queries": 900},
    "epochs": 12,
    "best_epoch": 9,
    "refitted": True,
}


def rows(rank: int) -> pd.DataFrame:
    users = [f"u{user}" for user in range(60)]
    return pd.DataFrame({"user_id": users, "item_id": "i1", "rank": rank, "slices": "new|users"}).astype({"rank": "Int32"})


@pytest.mark.parametrize("first", [True, False])
def test_card(first: bool) -> None:
    config = small_config("films")
    gate = config.promotion.model_copy(update={"min_slice_users": 50})
    decision = decide(rows(1), None if first else rows(2), {"popularity": rows(5)}, gate)
    assert decision.decision == "promote"
    tags = {"nightloom.data_hash": "abc"}
    card = model_card(
        config,
        METRICS,
        asdict(decision),
        tags,
        training=TRAINING,
        slices={"new": {"users": 60, "events": 90, "ndcg_at_10": 0.7}},
        asked={"test_users": 60, "test_queries": 90, "without_history": {"queries": 7}, "sampled_from": None},
        membership={
            "events": {"network": 0.55, SEARCH: 0.67},
            "users": {"network": 0.6, SEARCH: 0.9},
            "shipped_events": 0.55,
            "shipped_users": 0.6,
        },
        counts={"events": 12345},
        licence="research only",
    )
    assert "AUC 0.550 per event (within the limit of 0.60; .5 is chance) and 0.600 per user." in card
    assert "which are not registered, it would be 0.670 and 0.900." in card
    assert "No edge between two items rests on fewer than 5 people." in card
    assert card.startswith("# nightloom-films\n")
    assert "| nightloom | 1.0000 | 0.9000 | 0.8000 |" in card
    assert "90 events of 60 users were asked about, 7 of them without any history." in card
    assert "| popularity | 0.5000 | 0.2500 |  |" in card
    assert "elsewhere" not in card
    assert all("- " + reason.replace("ndcg_at_10", "NDCG@10") in card for reason in decision.reasons)
    (against,) = decision.baselines
    assert f"| popularity | 60 | 60 | 1.0000 | 0.3869 | +0.6131 | {against.low:+.4f} to {against.high:+.4f} |" in card
    assert ("slice by slice" in card) is not first
    assert "- events: 12,345 rows\n- licence of the data: research only\n- data_hash: abc" in card
    assert "mlflow.pyfunc.load_model('models:/nightloom-films@champion')" in card
    assert "| new | 60 | 90 | 0.7000 |" in card
    assert card.isascii()


def card_of(training: dict[str, Any]) -> str:
    config = small_config("films")
    return model_card(config, METRICS, asdict(decide(rows(1), None, {}, config.promotion)), {}, training=training)


def test_what_data_say_is_text_in_the_card() -> None:
    config = small_config("films")
    hostile = HOSTILE.replace("|", "")
    frame = rows(1).assign(slices=hostile)
    decision = asdict(decide(frame, frame.assign(rank=rows(2)["rank"]), {"popularity": rows(5)}, config.promotion))
    decision["reasons"] = (HOSTILE, *decision["reasons"])
    slices = {HOSTILE: {"users": 60, "events": 90, "ndcg_at_10": 0.7}}
    card = model_card(config, METRICS, decision, {}, training=TRAINING, slices=slices, licence=HOSTILE)
    made = MarkdownIt("gfm-like", {"linkify": False}).render(card)
    assert set(re.findall(r"<(\w+)", made)) <= {"h1", "h2", "p", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "code", "pre"}
    assert made.count("window.hit") >= 6


def test_card_without_extras() -> None:
    card = card_of(TRAINING)
    assert "Against" not in card
    assert "licence" not in card
    assert "Slice by slice" not in card


def test_members_stand_with_their_weights() -> None:
    card = card_of(TRAINING)
    assert "| network | 70.0% | 70.0% | 0.3000 | causal transformer over the history |" in card
    assert "| graph | 25.0% | 25.0% | 0.2000 | which item follows which |" in card
    assert card.index("| network |") < card.index("| graph |") < card.index("| popularity |")
    assert "Tried on validation and left out: friends." in card
    assert "The network is a causal transformer: 2 blocks" in card
    assert "Epoch 9 of 12 was the best. It was then trained anew" in card
    assert "A re-ranker orders the 100 best candidates" in card


def test_a_network_without_a_weight_is_not_praised() -> None:
    card = card_of(TRAINING | {"weights": {"graph": 0.7, "cooccurrence": 0.2, "popularity": 0.1}})
    assert "The network has a fusion weight of 0 % and takes no part in the ranking" in card
    assert "transformer" not in card
    assert "| network |" not in card


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"kept": False, "gain": 0.001, "error": 0.002, "queries": 900}, "There is no re-ranker: one was tried"),
        ({"kept": False, "gain": 0.0, "error": 0.0, "queries": 0}, "There is no re-ranker: the fused score is the order."),
    ],
)
def test_a_model_without_a_reranker(found: dict[str, Any], said: str) -> None:
    assert said in card_of(TRAINING | {"reranker": found})


def test_the_card_holds_the_nights_figures() -> None:
    config = small_config("films")
    name = config.evaluation.protocols[0]
    metrics = {"nightloom": {name: {"hr_at_10": 0.5, "ndcg_at_10": 0.25, "arp_at_10": 120.5, "gini_at_10": 0.81, "tail_items_at_10": 12.0}}}
    groups = [
        {"name": "F", "users": 20, "value": 0.3, "low": 0.2, "high": 0.4},
        {"name": "M", "users": 30, "value": 0.2, "low": 0.1, "high": 0.3},
    ]
    fidelity = [{"removed": 1, "users": 8, "pos_at_5": 0.75, "cdcg": 0.61, "deletion": 0.7, "insertion": 0.95}]
    card = model_card(
        config,
        metrics,
        asdict(decide(rows(1), None, {}, config.promotion)),
        {},
        training=TRAINING,
        intervals={"hr_at_10": (0.45, 0.55), "ndcg_at_10": (0.2, 0.3)},
        fairness=[{"attribute": "sex", "groups": groups, "best": "F", "worst": "M", "gap": 0.1, "low": -0.05, "high": 0.25}],
        fidelity=fidelity,
        estimator={"histories": 40, "relative_rmse": 0.38, "top_1": 0.77},
        left_out={"users who asked to be forgotten": 3, "repeat": 0},
        quarantined={"events": 7, "items": 0},
        reason_votes={"events": {"helpful": 12, "not_helpful": 3}},
    )
    for said in (
        "| NDCG@10 | 0.2500 | 0.2000 to 0.3000 |",
        "| sex | F: 0.3000 (20 users) | M: 0.2000 (30 users) | 0.1000 (-0.0500 to +0.2500) |",
        "| distinct tail items that are shown | 12 |",
        "| 1 | 8 | 0.750 | 0.610 | 0.700 | 0.950 |",
        "name the same first event in 77% of the histories",
        "- 3 events left out: users who asked to be forgotten",
        "- 7 rows of events set aside by the data contract",
        "| because of events that are named | 12 | 3 |",
    ):
        assert said in card, said
    assert "left out: repeat" not in card


def test_the_data_card_says_what_the_data_are() -> None:
    prepared = {"events": 90, "users": 10, "items": 30, "positive": 60, "items_without_text": 2, "removed": {HOSTILE: 5}}
    card = data_card(
        small_config("films"),
        data_hash="d" * 64,
        counts={"events": 100, "items": 30},
        period=("2020-01-01", "2020-06-30"),
        features={"title": "text", HOSTILE: "tags"},
        prepared=prepared,
        left_out={"users who asked to be forgotten": 5},
        quarantined={"events": 4},
        rules=17,
        notes=[HOSTILE],
        licence="research only",
    )
    for said in (
        "Snapshot dddddddddddddddd.",
        "| events | 100 |",
        "90 events of 10 users on 30 items (30.000 % of all pairs)",
        "- from 2020-01-01 to 2020-06-30",
        "- 5 events left out: users who asked to be forgotten",
        "- 4 rows of events set aside by the data contract",
        "has 17 rules",
        "named by the ids that the source has",
    ):
        assert said in card, said
    made = MarkdownIt("gfm-like", {"linkify": False}).render(card)
    assert set(re.findall(r"<(\w+)", made)) <= {"h1", "h2", "p", "ul", "li", "table", "thead", "tbody", "tr", "th", "td"}
