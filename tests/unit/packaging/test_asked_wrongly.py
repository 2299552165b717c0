"""What the registered model says, through MLflow, to rows that it could only answer by a guess; and rows of both kinds at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from nightloom.core.errors import InputError
from nightloom.packaging.log_model import log_model
from nightloom.packaging.served import recommender
from nightloom.packaging.serving_artefact import write_serving
from nightloom.runs.tracking import Tracking
from tests.small_bundle import small_bundle, small_config


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The model as anyone loads it, with a store that knows user `u`."""
    import mlflow

    folder = tmp_path_factory.mktemp("asked")
    events = pd.DataFrame(
        {"user_id": "u", "item_id": ["i1", "i2"], "event": "buy", "timestamp": pd.to_datetime([1.6e9, 1.6e9 + 9], unit="s")}
    )
    events["timestamp"] = events["timestamp"].dt.tz_localize("UTC")
    events.to_parquet(folder / "events.parquet", index=False)
    tracking = Tracking(folder / "mlruns")
    with tracking.parent(small_config("asked"), "a run", {}) as run:
        bundle = small_bundle(folder / "bundle")
        write_serving(bundle, folder / "serving")
        served = recommender(bundle, folder / "serving", [["i1"]], folder / "events.parquet", exclude_seen=True)
        logged = log_model(tracking.client, served, run, {}, "# A card")
    return mlflow.pyfunc.load_model(str(Path(logged.artifact_location.removeprefix("file://"))))


def test_rows_of_both_kinds_are_each_answered_as_alone(model: Any) -> None:
    both = pd.DataFrame({"history": [["i3", "i4"], None, []], "user_id": [None, "u", None]})
    found = model.predict(both, params={"k": 3})
    alone = [model.predict(pd.DataFrame([row]), params={"k": 3}) for row in ({"history": ["i3", "i4"]}, {"user_id": "u"}, {"history": []})]
    assert found["items"].tolist() == [one["items"][0] for one in alone]
    assert not {"i1", "i2"} & set(found["items"][1])


@pytest.mark.parametrize(
    ("rows", "params", "told"),
    [
        ({"history": [["i1"], ["i2"]], "user_id": [None, "u"]}, {}, "row 1 has both `history` and `user_id`"),
        ({"history": [["i1"], None], "user_id": [None, None]}, {}, "row 1 has neither `history` nor `user_id`"),
        ({"history": [[], ["x", "y"]]}, {}, "row 1: none of the 2 ids of its history is in the catalogue of 10 items, for example 'x'"),
        ({"history": [["i1"]]}, {"k": -1}, "k is -1. Ask for at least one item"),
        ({"history": [["i1"]]}, {"k": 0}, "k is 0"),
        ({"history": [["i1", "i2"]], "times": [[1_600_000_000_000, 1_600_000_001_000]]}, {}, "no time in seconds since 1970"),
        ({"history": [["i1", "i2"]], "times": [[1_600_000_001, 1_600_000_000]]}, {}, "its times fall"),
        ({"history": [["i1"]], "times": [[1_600_000_000]], "request_time": [1_600_000_001_000]}, {}, "request_time holds 1600000001000"),
    ],
)
def test_what_could_only_be_guessed_is_told(model: Any, rows: dict[str, Any], params: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        model.predict(pd.DataFrame(rows), params=params)


def test_one_history_of_unknown_ids_ends_no_batch(model: Any) -> None:
    rows = pd.DataFrame({"history": [["i1", "i2"], ["gone"], []]})
    with pytest.warns(UserWarning, match=r"1 of 2 histories are answered as those of somebody new. row 1: none of the 1 ids"):
        found = model.predict(rows, params={"k": 3})
    assert found["items"][1] == found["items"][2] != found["items"][0]


def test_some_unknown_ids_are_passed_over(model: Any) -> None:
    found = model.predict(pd.DataFrame({"history": [["gone", "i1"], ["i1"]]}), params={"k": 3})
    assert found["items"][0] == found["items"][1]
