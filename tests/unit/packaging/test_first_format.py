"""A bundle that the version before wrote (`bundle_of_format_1.zip`, with what that version answered) is still read."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from nightloom.core.errors import InputError, RenamedWarning
from nightloom.core.queries import Query
from nightloom.models.heads.reranker import Reranker
from nightloom.packaging.bundle import Bundle

START = 1_700_000_000
QUERIES = [
    Query(["i0", "i1", "i4"], [START - 3000, START - 2000, START - 1000], ["buy", "view", "buy"], request_time=START),
    Query(request_time=START),
    Query(["i5"], [START - 50], ["view"], request_time=START),
]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    with zipfile.ZipFile(Path(__file__).with_name("bundle_of_format_1.zip")) as packed:
        packed.extractall(tmp_path / "champion")
    return tmp_path / "champion"


@pytest.fixture
def expected(old: Path) -> SimpleNamespace:
    return SimpleNamespace(**json.loads((old / "expected.json").read_text()))


def test_it_answers_as_the_version_before_did(old: Path, expected: SimpleNamespace) -> None:
    with pytest.warns(RenamedWarning, match="a bundle of the version before"):
        bundle = Bundle.load(old)
    recommender = bundle.recommender
    np.testing.assert_allclose(recommender.network_scores(bundle.histories(QUERIES)), expected.network, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(bundle.probabilities(QUERIES, [["i2", "i3"]] * 3), expected.probabilities, rtol=1e-5)
    assert recommender.reranker is not None
    table = np.random.default_rng(3).normal(size=(2, 4, len(expected.columns))).astype(np.float32)
    found, low, high = recommender.reranker.log_odds(table), *_range_of(recommender.reranker)
    inside = ((table >= low) & (table <= high)).all(-1)  # beyond it the version before went on along straight lines
    assert inside.sum() >= 3
    np.testing.assert_allclose(found[inside], np.array(expected.reranker)[inside], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found, recommender.reranker.log_odds(np.clip(table, low, high)))
    counted = recommender.reranker.item_counters.until(np.arange(10), np.full(10, START))
    assert counted.tolist() == expected.counted
    assert [len(one) for one in bundle.recommend(QUERIES, 5)] == [5, 5, 5]


def _range_of(reranker: Reranker) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest number of each column at the fit, float32 [columns] each."""
    low, high = np.array([(edges[0], edges[-1]) for edges in reranker.numbers.bin_edges], dtype=np.float32).T
    return low, high


def test_all_that_a_champion_is_compared_by_is_there(old: Path) -> None:
    with pytest.warns(RenamedWarning):
        bundle = Bundle.load(old)
    assert (bundle.event_names.known, bundle.event_names.default) == (["buy", "view"], "view")
    assert bundle.meta["cutoffs"] == {"temporal": {"validation": START - 200, "test": START - 100}}
    assert bundle.manifest.model["scorers"][0] == "graph"
    assert {"reranker.json", "item_counters.npz", "search.safetensors"} <= set(bundle.manifest.files)
    search = bundle.arrays("search.safetensors")
    assert {name.removeprefix("net.") for name in search if name.startswith("net.")} == set(bundle.recommender.net.state_dict())
    moved = bundle.reindex(pd.concat([bundle.items.iloc[::-1], bundle.items.iloc[:1].assign(item_id="new")], ignore_index=True), None)
    assert np.isfinite(moved.scores(bundle.histories([Query()]))).all()


def test_the_folder_itself_stays_and_is_copied_once(old: Path) -> None:
    before = {path.name: path.read_bytes() for path in old.iterdir()}
    with pytest.warns(RenamedWarning) as said:
        first, second = Bundle.load(old), Bundle.load(old)
    assert len([one for one in said if one.category is RenamedWarning]) == 1
    assert first.folder == second.folder != old
    assert {path.name: path.read_bytes() for path in old.iterdir()} == before


@pytest.mark.parametrize("name", ["items.parquet", "model.safetensors", "purchase.json"])
def test_a_broken_one_is_refused(old: Path, name: str) -> None:
    (old / name).write_bytes(b"")
    with pytest.warns(RenamedWarning), pytest.raises(InputError, match="champion: damaged, it can not be read"):
        Bundle.load(old)
