"""Vectors kept by text, and the stage that uses them: only new texts are encoded."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from nightloom.config import PretrainedConfig
from nightloom.core.errands import run_errand
from nightloom.core.errors import InputError
from nightloom.encoders import blocks, text_cache
from nightloom.encoders.load_pretrained import load_pretrained
from nightloom.encoders.text import TextEncoder
from nightloom.encoders.text_cache import Progress, TextCache
from nightloom.encoders.weights import resolve
from nightloom.training import ray_texts
from nightloom.training.ray_errands import Errand
from tests.tiny_models import DIM, tiny_bert


def length_and_first(texts: list[str], tell: Progress) -> NDArray[np.float32]:
    tell(len(texts), len(texts))
    return np.array([[len(text), ord(text[0])] for text in texts], dtype=np.float32)


def nothing_new(texts: list[str], tell: Progress) -> NDArray[np.float32]:
    raise AssertionError(f"encoded again: {texts}")


def test_only_new_texts_are_encoded_each_once_and_in_order(tmp_path: Path) -> None:
    cache = TextCache(tmp_path / "cache")
    first, encoded = cache.vectors(["b", "aa", "b"], length_and_first)
    assert encoded == 2
    assert first.tolist() == [[1, 98], [2, 97], [1, 98]]
    asked: list[str] = []

    def note(texts: list[str], tell: Progress) -> NDArray[np.float32]:
        asked.extend(texts)
        return length_and_first(texts, tell)

    second, encoded = cache.vectors(["ccc", "b"], note)
    assert (asked, encoded, second.dtype) == (["ccc"], 1, np.float32)
    assert second.tolist() == [[3, 99], [1, 98]]
    assert cache.vectors(["aa", "b", "ccc"], nothing_new)[0].tolist() == [[2, 97], [1, 98], [3, 99]]
    assert cache.vectors([], nothing_new)[0].shape == (0, 0)


@pytest.mark.parametrize("damage", [lambda content: content[:-20], lambda content: b"", lambda content: content[:90] + b"x" + content[91:]])
def test_a_damaged_shard_is_put_aside_and_its_texts_encoded_again(tmp_path: Path, damage) -> None:
    cache = TextCache(tmp_path)
    cache.vectors(["a"], length_and_first)
    [shard] = tmp_path.glob("*.npz")
    cache.vectors(["bb"], length_and_first)
    shard.write_bytes(damage(shard.read_bytes()))
    vectors, encoded = cache.vectors(["a", "bb"], length_and_first)
    assert encoded == 1
    assert vectors.tolist() == [[1, 97], [2, 98]]
    assert len(list(tmp_path.glob("*.damaged-*"))) == 1
    cache.vectors(["a", "bb"], nothing_new)


def test_what_a_killed_run_had_encoded_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_cache, "SHARD", 2)
    told: list[tuple[int, int]] = []
    texts = ["a", "b", "c", "d", "e"]

    def killed_at_c(part: list[str], tell: Progress) -> NDArray[np.float32]:
        if "c" in part:
            raise KeyboardInterrupt
        return length_and_first(part, tell)

    with pytest.raises(KeyboardInterrupt):
        TextCache(tmp_path).vectors(texts, killed_at_c)
    vectors, encoded = TextCache(tmp_path).vectors(texts, length_and_first, lambda done, total: told.append((done, total)))
    assert encoded == 3
    assert vectors[:, 1].tolist() == [97, 98, 99, 100, 101]
    assert told == [(2, 3), (3, 3)]


def _fill(folder: Path, start: int) -> None:
    for at in range(start, start + 20):
        TextCache(folder).vectors([f"text {at}", f"text {at + 1}"], length_and_first)


def test_two_processes_can_write_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_fill, args=(tmp_path, start)) for start in (0, 5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    TextCache(tmp_path).vectors([f"text {at}" for at in range(26)], nothing_new)
    assert not list(tmp_path.glob("*.damaged-*"))


@pytest.fixture
def stage(tmp_path: Path):
    """Runs the stage on some texts: figures, vectors, mask, texts."""
    model = tiny_bert(tmp_path / "model")

    def run(texts: list[str | None], **config):
        prepared, folder = tmp_path / "prepared", tmp_path / "out"
        prepared.mkdir(exist_ok=True)
        folder.mkdir(exist_ok=True)
        items = pd.DataFrame({"item_id": [str(at) for at in range(len(texts))], "text": pd.Series(texts, dtype="str")})
        items.to_parquet(prepared / "items.parquet", index=False)
        settings = PretrainedConfig(**({"model": str(model)} | config))
        figures = load_pretrained(settings, prepared, tmp_path / "mlruns", folder)
        assert json.loads((folder / "pretrained.json").read_text()) == figures
        read = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
        return figures, np.load(folder / "text_vectors.npy"), np.load(folder / "text_mask.npy"), read

    run.model = model
    return run


def test_the_stage_writes_a_row_an_item_and_encodes_only_what_is_new(stage, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["toy story", None, "heat", "toy story", "  ", "Amélie"]
    figures, vectors, mask, read = stage(texts)
    assert {key: figures[key] for key in ("dim", "items", "encoded", "reused", "missing", "pooling", "source")} == {
        "dim": DIM, "items": 6, "encoded": 3, "reused": 0, "missing": 2, "pooling": "mean", "source": "folder",
    }  # fmt: skip
    assert read == ["toy story", None, "heat", "toy story", None, "Amélie"]
    assert mask.tolist() == [True, False, True, True, False, True]
    assert vectors.dtype == np.float32
    assert not vectors[~mask].any()
    expected = TextEncoder.load(str(stage.model)).encode([text for text in read if text])
    np.testing.assert_allclose(vectors[mask], expected, atol=1e-5)
    figures, more, _, _ = stage([*texts, "jazz"])
    assert (figures["encoded"], figures["reused"]) == (1, 3)
    np.testing.assert_array_equal(more[:6], vectors)
    monkeypatch.setattr(TextEncoder, "from_weights", lambda *_, **__: pytest.fail("the model was loaded"))
    figures, again, _, _ = stage([*texts, "jazz"], pooling="mean")
    assert (figures["encoded"], figures["reused"]) == (0, 4)
    np.testing.assert_array_equal(again, more)


def test_another_model_pooling_or_length_has_its_own_vectors(stage, tmp_path: Path) -> None:
    for config in ({}, {"pooling": "cls"}, {"max_tokens": 4}, {"model": str(tiny_bert(tmp_path / "other", seed=1))}):
        assert stage(["toy story of the lost king"], **config)[0]["encoded"] == 1


def test_blocks_that_processes_elsewhere_encode_have_the_same_vectors(
    stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (text_cache, blocks, ray_texts):
        monkeypatch.setattr(module, "SHARD", 4)
    texts = [f"film {at} of the {'wild ' * (at % 5)}sea" for at in range(18)]
    _, here, _, _ = stage(texts)
    jobs: list[tuple[Path, list[str]]] = []

    def run(module: str, errands: list[Errand], at_once: int) -> tuple[int, Path]:
        """Errands one after the other in this process, the last first."""
        assert (module, at_once) == (blocks.__name__, 2)
        for errand in reversed(errands):
            jobs.append((errand.argument, json.loads(errand.argument.read_text(encoding="utf-8"))["texts"]))
            assert run_errand(errand.argument, blocks.encode) == 0
            for line in capsys.readouterr().out.splitlines():
                errand.progress(line)
        return 0, errands[-1].log

    monkeypatch.setattr(ray_texts, "run_errands", run)
    told: list[tuple[int, int]] = []
    (tmp_path / "there").mkdir()
    spread = {"progress": lambda *one: told.append(one), "elsewhere": ray_texts.encode_on_ray(tmp_path / "jobs", 2)}
    config = PretrainedConfig(model=str(stage.model))
    figures = load_pretrained(config, tmp_path / "prepared", tmp_path / "there", tmp_path / "there", **spread)
    np.testing.assert_array_equal(np.load(tmp_path / "there" / "text_vectors.npy"), here)
    assert figures["encoded"] == 18
    assert [given for _, given in reversed(jobs)] == [texts[:12], texts[12:]], "whole blocks, as many a job"
    assert told == [(4, 18), (6, 18), (10, 18), (14, 18), (18, 18)]
    assert not (tmp_path / "jobs").exists()
    assert len({path.name for path in (tmp_path / "there" / "cache").rglob("*.npz")}) == 5

    weights = resolve(str(stage.model))
    other = replace(blocks.Encoding.of(weights, "tiny", "mean", 64, "torch", tmp_path), fingerprint="0" * 64)
    other.write(tmp_path / "work.json", ["a"])
    assert run_errand(tmp_path / "work.json", blocks.encode) == InputError.exit_code
    assert "is not the model of the night" in capsys.readouterr().err


@pytest.mark.parametrize("texts", [[None, None, ""], []])
def test_a_catalogue_without_text_needs_no_model(stage, texts) -> None:
    figures, vectors, mask, read = stage(texts, model="no-one/has-this")
    assert (figures["dim"], figures["encoded"], figures["missing"]) == (0, 0, len(texts))
    assert vectors.shape == (len(texts), 0)
    assert not mask.any()
    assert read == [None] * len(texts)


def test_items_without_a_text_column_are_refused(tmp_path: Path) -> None:
    pd.DataFrame({"item_id": ["a"]}).to_parquet(tmp_path / "items.parquet")
    with pytest.raises(InputError, match=r"items\.parquet: no readable column `text`"):
        load_pretrained(PretrainedConfig(), tmp_path, tmp_path, tmp_path)
