"""The report's dict: the keys that others rely on, and JSON values only."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nightloom.report.build import build_report
from tests.sample_reports import FAMILIES, decision, manifests, measures, night, report

KEYS = {
    "asked",
    "live",
    "fairness",
    "trade_off",
    "newcomers",
    "serves",
    *(
        "name",
        "night",
        "finished",
        "outcome",
        "data_hash",
        "config_hash",
        "git",
        "model",
        "protocols",
        "gate",
        "versions",
        "metrics",
        "answer",
        "as_of",
    ),
    *(
        "intervals",
        "slices",
        "curves",
        "training",
        "stages",
        "counts",
        "period",
        "quarantined",
        "quarantine_reasons",
        "images",
        "explanations",
        "reason_votes",
        "checks",
        "sample_lists",
        "movers",
        "refused",
        "links",
    ),
    *("licence", "config"),
}
ENDINGS = ("promoted", "first", "rejected", "waits", "dry_run", "disabled", "refused")


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_ending_has_the_same_keys_and_is_json(ending):
    found = report(ending)
    assert set(found) == KEYS
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["outcome"] == {"first": "promoted"}.get(ending, ending)


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_others_rely_on(ending):
    found = report(ending)
    assert set(found["versions"]) >= {"champion", "challenger", "previous"}
    assert set(found["gate"]) >= {"decision", "reasons", "metric", "difference", "interval"}
    for stage in found["stages"].values():
        assert set(stage) >= {"seconds", "peak_mb", "status"}
    assert found["quarantined"] == {"events": 13, "items": 0}
    assert len(found["data_hash"]) == len(found["config_hash"]) == 64


def test_metrics_are_by_family_protocol_and_metric():
    found = report()
    assert {family: by_protocol["streaming"]["ndcg_at_10"] for family, by_protocol in found["metrics"].items()} == FAMILIES
    assert found["gate"]["difference"] == 0.0024
    assert found["gate"]["interval"] == [-0.0009, 0.0058]


def test_a_refused_stage_is_listed_after_those_that_ran():
    found = report("refused")
    assert list(found["stages"]) == ["collect", "validate"]
    assert found["stages"]["validate"]["status"] == "refused"
    assert found["refused"]["stage"] == "validate"
    assert found["gate"]["decision"] is None


def test_numbers_that_json_lacks_become_none_and_numpy_is_unwrapped(tmp_path):
    values = {"nightloom": {"streaming": {"ndcg_at_10": np.float32(0.5), "novelty_at_10": float("nan"), "gini_at_10": np.inf}}}
    found = build_report(night(tmp_path), manifests(tmp_path), metrics=values, decision=decision(), counts={"events": np.int64(7)})
    assert found["metrics"]["nightloom"]["streaming"] == {"ndcg_at_10": 0.5, "novelty_at_10": None, "gini_at_10": None}
    assert found["counts"] == {"events": 7}
    assert json.dumps(found, allow_nan=False)


def test_a_night_before_the_gate_is_reported_without_a_decision(tmp_path):
    found = build_report(night(tmp_path), manifests(tmp_path), **measures())
    assert found["outcome"] == "disabled"
    assert found["links"]["folder"] == str(tmp_path / "nights" / "films" / "20261124-020000")
