"""The gate rounds the sequence model and the item vectors as far as nothing is lost by it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from nightloom.compress import sequence as gate
from nightloom.compress.sequence import SequenceGate, as_served, sequence_export
from nightloom.config import RunConfig
from nightloom.core.int8_rows import rounded_rows, whole_rows
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.rounding import rounded
from nightloom.packaging.serving_artefact import network_arrays
from nightloom.packaging.serving_precision import LADDER, MATRICES, SINGLE, Precisions, stored
from tests.service_app import make_snapshot
from tests.serving_bundle import serving_bundle

INT8 = Precisions("int8", "int8")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A bundle with all rules of stage prepare, and its users' events."""
    folder = tmp_path_factory.mktemp("gate")
    bundle = Bundle.load(serving_bundle(folder / "bundle", scorers=("popularity",)))
    rules = RunConfig.model_validate({"name": "shop", "data": {"events": "none.csv"}}).prepare.model_dump(mode="json")
    meta: Any = bundle.meta
    meta["prepare"] = rules | {"positive_events": ["buy"], "seen_events": ["buy", "return"], "keep_repeats": True}
    meta["rare_items"] = []
    return SimpleNamespace(bundle=bundle, snapshot=make_snapshot(folder / "snapshot"))


def test_rounding_twice_changes_nothing() -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32)
    vectors[7] = 0
    whole, scale = rounded_rows(vectors)
    assert np.abs(whole[np.arange(50) != 7]).max(1).tolist() == [127] * 49
    np.testing.assert_allclose(whole_rows(whole, scale), vectors, atol=np.abs(vectors).max() / 254 + 1e-6)
    again, same = rounded_rows(whole_rows(whole, scale))
    np.testing.assert_array_equal(again, whole)
    np.testing.assert_allclose(same, scale, rtol=1e-6)


def test_what_is_rounded_is_what_is_stored(made: SimpleNamespace) -> None:
    """The rounded model's arrays are whole numbers times scales, and the model that was given stays as it was."""
    recommender = made.bundle.recommender
    before = {name: value.clone() for name, value in recommender.net.state_dict().items()}
    plain = network_arrays(rounded(recommender, INT8))
    kept = stored(plain, INT8)
    for name in MATRICES:
        assert kept[name].dtype == np.int8
        np.testing.assert_allclose(kept[name] * kept[f"{name}.scale"][:, None], plain[name], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(whole_rows(kept["vectors"], kept["vectors.scale"]), plain["vectors"], rtol=1e-5)
    assert not np.array_equal(plain["vectors"], network_arrays(recommender)["vectors"])
    assert all(torch.equal(before[name], value) for name, value in recommender.net.state_dict().items())


def test_queries_are_those_of_a_service(made: SimpleNamespace) -> None:
    """Each asks for a later purchase, with all that its user did strictly before it."""
    targets, queries = gate.streamed(made.bundle, made.snapshot)
    assert len(targets) == len(queries) > 60
    events = pd.read_parquet(made.snapshot / "events.parquet")
    bought = set(zip(events[events["event"] == "buy"]["item_id"], events["timestamp"].astype("int64") // 10**3, strict=False))
    bought |= {(item, when) for item, when in zip(events["item_id"], events["timestamp"].astype("int64") // 1000, strict=True)}
    for target, query in zip(targets, queries, strict=True):
        assert query.times is not None
        assert query.request_time is not None
        assert max(query.times) < query.request_time
        assert f"i{target}" not in query.history
        assert (f"i{target}", query.request_time) in bought


def test_the_smallest_that_loses_nothing_is_taken(made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    found = SequenceGate(made.bundle, made.snapshot)
    monkeypatch.setattr(gate, "FEWEST", 60)
    measured = [found.measured(precisions) for precisions in LADDER]
    assert [one.bytes for one in measured] == sorted(one.bytes for one in measured)
    assert measured[-1].bytes == measured[-1].single_bytes
    wanted = next(one for one in measured if one.precisions == SINGLE or one.ndcg_lost < gate.MOST_LOST)
    assert found.smallest() == wanted
    assert measured[0].lists_kept > 0.9
    monkeypatch.setattr(gate, "MOST_LOST", -1.0)
    assert found.smallest().precisions == SINGLE


def test_few_events_leave_it_as_it_is(made: SimpleNamespace) -> None:
    """Where chance alone could decide, and where there are no events at all, nothing is rounded."""
    assert SequenceGate(made.bundle, None).smallest().precisions == SINGLE
    asked = SequenceGate(made.bundle, made.snapshot)
    assert len(asked.queries) < gate.FEWEST
    assert asked.smallest().precisions == SINGLE


def test_where_nothing_is_gained_nothing_is_rounded(made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that fits the processor's caches stays float32 without being asked; so does one that shall."""
    small = sequence_export(made.bundle, made.snapshot)
    assert (small.precisions, small.queries, small.passes) == (SINGLE, 0, True)
    monkeypatch.setattr(gate, "WORTH", gate.single_bytes(made.bundle))
    monkeypatch.setattr(gate, "FEWEST", 60)
    monkeypatch.setattr(gate, "MOST_LOST", 1.0)
    assert sequence_export(made.bundle, made.snapshot, compress=False) == small
    found = sequence_export(made.bundle, made.snapshot)
    assert found.precisions == INT8
    assert found.bytes < found.single_bytes == small.single_bytes


def test_activations_are_rounded_too(made: SimpleNamespace, tmp_path: Path) -> None:
    histories = made.bundle.histories(gate.streamed(made.bundle, made.snapshot)[1][:20])
    model, weights, both = made.bundle.recommender, rounded(made.bundle.recommender, INT8), as_served(made.bundle.recommender, INT8)
    users = [one.user_vectors(histories, one.item_vectors()).numpy() for one in (model, weights, both)]
    apart = [np.linalg.norm(one - users[0]) / np.linalg.norm(users[0]) for one in users[1:]]
    assert 0 < apart[0] < 0.1
    assert 0 < apart[1] < 0.1
    assert not np.array_equal(users[1], users[2])
