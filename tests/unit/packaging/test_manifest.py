"""`bundle.json` says what a bundle is, and finds out when a file is no longer what was written."""

from __future__ import annotations

import json
from hashlib import file_digest
from pathlib import Path

import pytest

from nightloom import __version__
from nightloom.core import digests
from nightloom.core.errors import InputError
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.manifest import FORMAT, Manifest
from nightloom.packaging.reader import BundleReader
from tests.small_bundle import headed_bundle, random_bundle, small_bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small_bundle(tmp_path / "bundle")


def test_the_manifest_describes_the_bundle(tmp_path: Path) -> None:
    folder = headed_bundle(tmp_path / "bundle")
    said = Manifest.read(folder)
    assert (said.format, said.nightloom, said.family) == (FORMAT, __version__, "nightloom")
    assert said.model["dim"] == said.shape["n_ids"] - 2 == 8
    assert said.weights["graph"] == 0.1
    assert said.heads == {"reranker": True, "labels": True}
    assert said.encoder == {}
    assert set(said.files) == {path.name for path in folder.iterdir()} - {"bundle.json"}
    assert {"model.safetensors", "catalogue.safetensors", "graph.npz", "reranker.json", "item_counters.npz", "label.json"} <= set(
        said.files
    )


def test_the_encoders_are_named(tmp_path: Path) -> None:
    from nightloom.models.sequential.recommender import SequentialRecommender
    from nightloom.packaging.write import write_bundle

    recommender = SequentialRecommender.load(small_bundle(tmp_path / "bundle"))
    text = {"model": "some/model", "sha256": "ab", "pooling": "mean", "max_tokens": 64}
    pretrained = tmp_path / "pretrained"
    pretrained.mkdir()
    (pretrained / "pretrained.json").write_text(json.dumps(text | {"path": "/home/x", "dim": 6, "images": {"model": "eye", "dim": 0}}))
    (tmp_path / "again" / "language_model").mkdir(parents=True)
    (tmp_path / "again" / "language_model" / "config.json").write_text("{}")
    write_bundle(recommender, tmp_path / "bundle-source", tmp_path / "again", pretrained)
    said = BundleReader.load(tmp_path / "again").manifest
    assert said.encoder == {"text": text | {"tuned": True}}
    assert "language_model/config.json" in said.files


def test_a_file_of_another_size_is_damaged(folder: Path) -> None:
    Bundle.load(folder)
    path = folder / "graph.npz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"graph\.npz: damaged, it holds .* bytes instead of .*nightloom rollback"):
        Bundle.load(folder)
    path.unlink()
    with pytest.raises(InputError, match=r"graph\.npz: damaged, it is missing"):
        BundleReader.load(folder)


def test_a_changed_byte_is_found_once_a_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        InputError, match=r"model\.safetensors: damaged, its SHA-256 begins with \w{16}, expected \w{16}\..*nightloom rollback"
    ):
        BundleReader.load(folder)
    content[-1] ^= 1
    path.write_bytes(content)
    read: list[str] = []
    monkeypatch.setattr(digests, "SETTLED_SECONDS", 0.0)
    monkeypatch.setattr(digests.hashlib, "file_digest", lambda file, name: (read.append(file.name), file_digest(file, name))[1])
    BundleReader.load(folder)
    assert sorted(read) == sorted(str(folder / name) for name in Manifest.read(folder).files)
    BundleReader.load(folder)
    assert len(read) == len(set(read))
    del read[:]
    random_bundle(folder.with_name("bundle-source"), folder, labelled=True)  # another bundle in the same place is read through
    BundleReader.load(folder)
    assert len(read) == len(set(read)) > 5


def test_what_is_no_bundle_of_this_format_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not a whole bundle, bundle\.json is missing\. Name the bundle folder"):
        Bundle.load(tmp_path)
    said = json.loads((folder / "bundle.json").read_text())
    digests.write_sealed(folder / "bundle.json", said | {"format": FORMAT + 1, "nightloom": "9.9"})
    with pytest.raises(InputError, match=rf"format {FORMAT + 1}, written by Nightloom 9\.9.*update"):
        Bundle.load(folder)
    (folder / "bundle.json").write_text(json.dumps(said)[:100])
    with pytest.raises(InputError, match=r"bundle\.json: damaged"):
        Bundle.load(folder)
    digests.write_sealed(folder / "bundle.json", said | {"files": {}})
    with pytest.raises(InputError, match=r"not a whole bundle, catalogue\.safetensors, meta\.json, .* missing"):
        Bundle.load(folder)
