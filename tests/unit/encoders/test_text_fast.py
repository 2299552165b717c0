"""The fast engine gives the vectors of the slow one, to the precision it promises."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nightloom.config import PretrainedConfig
from nightloom.core.errors import InputError
from nightloom.encoders.load_pretrained import load_pretrained
from nightloom.encoders.text import TextEncoder
from nightloom.encoders.text_fast import accelerate
from tests.tiny_models import tiny_bert, tiny_llama

pytest.importorskip("openvino")
TEXTS = ["toy story", "the dark king of the lost city in space and the red ring", "", "heat", "star wars: a love story, and a dog"] * 3


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("fast") / "bert")


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_in_float32_the_vectors_are_the_same(bert: Path, pooling: str) -> None:
    slow = TextEncoder.load(str(bert), pooling=pooling).encode(TEXTS)  # type: ignore[arg-type]
    fast = accelerate(TextEncoder.load(str(bert), pooling=pooling), "f32")  # type: ignore[arg-type]
    assert np.abs(fast.encode(TEXTS) - slow).max() < 1e-4
    assert np.abs(fast.encode(TEXTS, batch_tokens=1) - slow).max() < 1e-4  # whatever shares a batch


def test_in_bfloat16_they_point_the_same_way(bert: Path) -> None:
    slow, fast = TextEncoder.load(str(bert)).encode(TEXTS), accelerate(TextEncoder.load(str(bert))).encode(TEXTS)
    assert ((slow * fast).sum(1) / np.linalg.norm(slow, axis=1) / np.linalg.norm(fast, axis=1)).min() > 0.999


def test_a_decoder_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pretrained\.engine=torch"):
        accelerate(TextEncoder.load(str(tiny_llama(tmp_path / "llama"))))


def test_without_the_package_the_message_says_what_to_install(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match=r"nightloom\[fast\]"):
        accelerate(TextEncoder.load(str(bert)))


def test_the_stage_keeps_the_vectors_of_the_two_engines_apart(bert: Path, tmp_path: Path) -> None:
    pd.DataFrame({"item_id": list("abc"), "text": ["toy story", None, "heat"]}).to_parquet(tmp_path / "items.parquet")
    found = {}
    for engine in ("torch", "fast"):
        config = PretrainedConfig(model=str(bert), engine=engine)  # type: ignore[arg-type]
        (out := tmp_path / engine).mkdir()
        assert load_pretrained(config, tmp_path, tmp_path / "mlruns", out)["encoded"] == 2
        assert load_pretrained(config, tmp_path, tmp_path / "mlruns", out)["reused"] == 2
        found[engine] = np.load(out / "text_vectors.npy")
        assert json.loads((out / "texts.json").read_text()) == ["toy story", None, "heat"]
    np.testing.assert_allclose(found["fast"], found["torch"], atol=0.05)
    assert len(list((tmp_path / "mlruns" / "cache" / "text").iterdir())) == 2
