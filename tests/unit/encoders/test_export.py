"""What the service reads texts with gives the night's vectors, without torch and transformers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nightloom.core.errors import InputError
from nightloom.encoders.export import export
from nightloom.encoders.exported import SETTINGS, ExportedEncoder
from nightloom.encoders.text import TextEncoder
from tests.tiny_models import tiny_bert, tiny_llama

TEXTS = ["toy story", "the dark king of the lost city in space and the red ring " * 4, "", "heat", "Ein Löwe, 猫 und ein Hund"] * 9
PROBE = """
import sys
from pathlib import Path
from nightloom.encoders.exported import ExportedEncoder
ExportedEncoder(Path(sys.argv[1])).encode(["toy story"])
assert not {"torch", "transformers", "pandas"} & set(sys.modules), sorted(sys.modules)
"""


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return (left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("tokens", [64, 8])
def test_in_single_precision_the_vectors_are_the_same(tmp_path: Path, pooling: str, tokens: int) -> None:
    encoder = TextEncoder.load(str(tiny_bert(tmp_path / "bert")), pooling=pooling, max_tokens=tokens)  # type: ignore[arg-type]
    export(encoder, tmp_path / "single", "single")
    read = ExportedEncoder(tmp_path / "single")
    assert read.dim == encoder.dim
    np.testing.assert_allclose(read.encode(TEXTS), encoder.encode(TEXTS), atol=1e-4)
    assert read.encode([]).shape == (0, encoder.dim)


def test_a_decoder_is_read_as_well(tmp_path: Path) -> None:
    encoder = TextEncoder.load(str(tiny_llama(tmp_path / "llama")))
    assert encoder.pooling == "last"
    export(encoder, tmp_path / "single", "single")
    np.testing.assert_allclose(ExportedEncoder(tmp_path / "single").encode(TEXTS), encoder.encode(TEXTS), atol=1e-4)


def test_smaller_weights_point_the_same_way(tmp_path: Path) -> None:
    encoder = TextEncoder.load("sentence-transformers/all-MiniLM-L6-v2")
    wanted, sizes = encoder.encode(TEXTS), {}
    for precision, least in (("single", 0.99999), ("half", 0.9999), ("int8", 0.995)):
        export(encoder, tmp_path / precision, precision)  # type: ignore[arg-type]
        read = ExportedEncoder(tmp_path / precision)
        assert cosines(read.encode(TEXTS), wanted).min() > least
        np.testing.assert_allclose(read.vector("heat"), read.encode(TEXTS)[3], atol=1e-5)  # whatever shares a batch
        assert read.vector("heat") is read.vector("heat")
        sizes[precision] = (tmp_path / precision / "model.bin").stat().st_size
    assert sizes["int8"] <= 0.3 * sizes["single"]
    done = subprocess.run([sys.executable, "-c", PROBE, str(tmp_path / "int8")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    export(TextEncoder.load(str(tiny_bert(tmp_path / "bert"))), tmp_path / "made", "int8")
    settings = json.loads((tmp_path / "made" / SETTINGS).read_text())
    for name, content in (("model.bin", b""), ("tokenizer.json", b"{}"), (SETTINGS, json.dumps(settings | {"dim": None}).encode())):
        before = (tmp_path / "made" / name).read_bytes()
        (tmp_path / "made" / name).write_bytes(content)
        with pytest.raises(InputError, match="no text encoder that can be read"):
            ExportedEncoder(tmp_path / "made")
        (tmp_path / "made" / name).write_bytes(before)
    ExportedEncoder(tmp_path / "made")


def test_without_the_package_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = TextEncoder.load(str(tiny_bert(tmp_path / "bert")))
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match=r"nightloom\[night\]"):
        export(encoder, tmp_path / "made", "int8")
    with pytest.raises(InputError, match=r"nightloom\[serve\]"):
        ExportedEncoder(tmp_path / "made")
