"""Whether two runs may be compared, and in what their configs differ."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from nightloom.core.errors import InputError
from nightloom.promotion.compare import Origin, check_same_data, config_differences, origin_of_night, origin_of_run
from nightloom.promotion.quality import age, quality_of, quality_tags
from nightloom.runs.stages import Night
from nightloom.runs.tracking import Tracking
from tests.small_bundle import small_config

NAMES = ("a", "b")


def test_a_report_and_its_run_say_the_same(tmp_path: Path) -> None:
    night, tracking = Night(small_config(), "20260102-020000", tmp_path), Tracking(tmp_path)
    with tracking.night(night, {"nightloom.data_hash": "d" * 64}) as run:
        model = tracking.log_family(run, "nightloom", {}, tags={"nightloom.data_hash": "d" * 64})
    report = {"data_hash": "d" * 64, "config": night.config.model_dump(mode="json"), "gate": {"metric": "ndcg_at_10"}}
    (tmp_path / "report.json").write_text(json.dumps(report))
    mine = origin_of_night(tmp_path)
    assert mine.metric == "ndcg_at_10"
    assert mine.config["training.epochs"] == "60"
    for name in (run, model):
        its = origin_of_run(tracking, name)
        assert (its.data_hash, its.metric) == (mine.data_hash, mine.metric)
        assert config_differences(mine, its) == []


def test_different_data_are_refused() -> None:
    same, other, unknown = Origin("a" * 64), Origin("b" * 64), Origin()
    check_same_data(same, Origin("a" * 64), NAMES)
    check_same_data(same, unknown, NAMES)
    with pytest.raises(InputError, match=r"different data: a on aaaaaaaaaaaa, b on bbbbbbbbbbbb.*--other-data"):
        check_same_data(same, other, NAMES)


def test_a_folder_without_a_report_says_nothing(tmp_path: Path) -> None:
    assert origin_of_night(tmp_path) == Origin()


def test_differences_are_named_by_key() -> None:
    a, b = Origin(config={"x": "1", "y": "2", "only": "3"}), Origin(config={"x": "1", "y": "4"})
    assert config_differences(a, b) == [("only", "3", ""), ("y", "2", "4")]


def test_quality_of_a_version() -> None:
    found = quality_of(quality_tags({"metric": "ndcg_at_10", "challenger": 0.38551, "reasons": ("No champion stands.", "More.")}))
    assert (found.metric, found.value, found.reason) == ("ndcg_at_10", "0.3855", "No champion stands.")
    assert quality_of({}).value == ""


@pytest.mark.parametrize(("seconds", "said"), [(-5, "0 min"), (59, "0 min"), (3599, "59 min"), (7200, "2 h"), (200_000, "2 days")])
def test_age(seconds: int, said: str) -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    assert age(now - timedelta(seconds=seconds), now) == said
