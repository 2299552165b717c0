"""Events without times, by YAML alone: `order: random` draws their order, and the split is called random everywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nightloom.config import RunConfig, config_from_dict
from nightloom.core.errors import InputError
from nightloom.core.sequences import Sequences
from nightloom.data.collect import collect
from nightloom.data.preparation.prepare import prepare
from nightloom.data.tables.canonical import random_order
from nightloom.data.tables.snapshot import read_snapshot


def config(events: object = "e.csv", evaluation: Any = None, columns: dict[str, str] | None = None) -> RunConfig:
    named = columns or {"user_id": "user", "item_id": "item", "order": "random"}
    content = {"name": "mine", "data": {"events": str(events), "columns": {"events": named}}}
    return config_from_dict(content | ({"evaluation": evaluation} if evaluation is not None else {}))


def write_pairs(path: Path) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    rows = [(f"u{user}", f"i{item}") for user in range(40) for item in rng.permutation(30)[:10]]
    frame = pd.DataFrame(rows, columns=["user", "item"])
    frame.to_csv(path, index=False)
    return frame


def test_the_split_is_random_and_called_so(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs.csv")
    run = config(tmp_path / "pairs.csv", {"protocols": ["random", "leave_one_out"]})
    tables = read_snapshot(collect(run.name, run.data, tmp_path / "mlruns").path)
    figures = prepare(tables, tmp_path, prepare=run.prepare, evaluation=run.evaluation, tags_separator="|")
    assert {"random", "leave_one_out"} == set(figures["parts"])
    assert {part: figures["parts"]["random"][part] for part in ("train", "validation", "test")} == {
        "train": 280,
        "validation": 40,
        "test": 80,
    }
    meta = json.loads((tmp_path / "meta.json").read_text())
    assert (meta["has_time"], meta["cutoffs"]["random"]) == (False, {"validation": None, "test": None})
    sequences = Sequences.load(tmp_path / "sequences_random.npz")
    assert not sequences.has_time
    held_out = sequences.offsets[1:] - sequences.validation_end
    assert 1 < len(set(held_out.tolist())) < 12  # a part of the events of all, not some users whole


def test_an_event_keeps_its_place_when_rows_are_added_or_sorted() -> None:
    events = pd.DataFrame({"user_id": ["a", "b", "a", "a"], "item_id": ["x", "x", "y", "x"]})
    order = random_order(events)
    assert order.is_unique  # the second a-x too
    assert not order.is_monotonic_increasing
    assert random_order(events.iloc[:3]).tolist() == order[:3].tolist()
    assert random_order(events.iloc[[2, 1, 0]]).tolist() == order[[2, 1, 0]].tolist()


def test_the_protocol_follows_the_order() -> None:
    assert config().evaluation.protocols == ("random",)
    assert config(evaluation={"exclude_seen": False}).evaluation.protocols == ("random",)
    assert config(evaluation={"protocols": ["leave_one_out"]}).evaluation.protocols == ("leave_one_out",)
    assert config(columns={"order": "n"}).evaluation.protocols == ("streaming",)
    with pytest.raises(InputError, match="the order of events is random, so the split can not be temporal; write random"):
        config(evaluation={"protocols": ["temporal"]})
    with pytest.raises(InputError, match=r"events\.order is not random, so the split can not be random; write streaming, temporal"):
        config(columns={"user_id": "u"}, evaluation={"protocols": ["random"]})


def test_an_order_of_ones_own_is_still_a_column(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("user,item,n\na,x,2\na,y,1\n")
    run = config(tmp_path / "pairs.csv", columns={"user_id": "user", "item_id": "item", "order": "n"})
    assert read_snapshot(collect(run.name, run.data, tmp_path / "mlruns").path).events["order"].tolist() == [2, 1]
