"""The light reader: what the service learns of a bundle without torch and pandas."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nightloom.core.errors import InputError
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.reader import BundleReader
from tests.described_bundle import described_bundle, described_items
from tests.small_bundle import headed_bundle

OPEN = """
import json, sys
from pathlib import Path
from nightloom.packaging.reader import BundleReader
reader = BundleReader.load(Path(sys.argv[1]))
found = {name: sorted(reader.arrays(name)) for name in ("model.safetensors", "graph.npz", "reranker.safetensors", "item_counters.npz")}
json.dump({
    "items": [reader.item_ids.tolist(), reader.index, reader.titles().tolist(), list(reader.catalogue["text"])],
    "events": [list(reader.event_names.known), reader.event_names.default, reader.meta["has_time"]],
    "weights": dict(reader.weights),
    "arrays": found,
    "heavy": sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "pandas", "pyarrow", "mlflow", "transformers", "scipy"}),
}, sys.stdout)
"""


def test_a_bundle_is_opened_without_torch_and_pandas(tmp_path: Path) -> None:
    folder = headed_bundle(tmp_path / "bundle")
    done = subprocess.run([sys.executable, "-c", OPEN, str(folder)], capture_output=True, text=True, check=True)
    said, bundle = json.loads(done.stdout), Bundle.load(folder)
    assert said["heavy"] == []
    titles = [f"Title [{row}]" for row in range(10)]
    assert said["items"] == [bundle.item_ids.tolist(), bundle.index, titles, titles]
    assert said["events"] == [["buy"], "buy", True]
    assert said["weights"] == bundle.recommender.weights
    assert {"net.log_scale", "content.text", "content.codes"} <= set(said["arrays"]["model.safetensors"])
    assert {"keys", "times", "start"} <= set(said["arrays"]["item_counters.npz"])
    assert said["arrays"]["graph.npz"]


def test_arrays_are_those_of_the_model(tmp_path: Path) -> None:
    bundle = Bundle.load(headed_bundle(tmp_path / "bundle"))
    arrays = BundleReader.load(tmp_path / "bundle").arrays("model.safetensors")
    for name, value in bundle.recommender.net.state_dict().items():
        np.testing.assert_array_equal(arrays[f"net.{name}"], value.numpy())
    with pytest.raises(InputError, match=r"the bundle has no purchase\.npz\. It has: .*graph\.npz"):
        bundle.arrays("purchase.npz")


def test_the_catalogue_has_every_column(tmp_path: Path) -> None:
    bundle, items = described_bundle(tmp_path / "bundle"), described_items()
    assert bundle.catalogue.names == tuple(items)
    assert bundle.items.notna().equals(items.notna())
    for name in ("item_id", "genres", "text"):
        assert bundle.catalogue[name] == items[name].astype(object).where(items[name].notna(), None).tolist()
    np.testing.assert_array_equal(bundle.catalogue["price"], items["price"])
    assert bundle.titles().tolist() == [*(f"Title ${row}" for row in range(9)), "i9", "Title $10", "Title $11"]
    coded, expected = bundle.spec.encode(bundle.items), bundle.spec.encode(items)
    for name in ("offsets", "codes", "numbers"):
        np.testing.assert_array_equal(getattr(coded, name), getattr(expected, name))
