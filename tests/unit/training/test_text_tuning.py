"""LoRA and full tuning of a tiny BERT and a tiny Llama, end to end."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

from nightloom.core.errors import InputError
from nightloom.core.sequences import Histories
from nightloom.encoders.text import TextEncoder
from nightloom.packaging.bundle import Bundle
from nightloom.training.distributed import World
from nightloom.training.fine_tune import fine_tune
from nightloom.training.run import Training
from nightloom.training.run_json import Run
from tests.tiny_models import tiny_bert, tiny_llama
from tests.unit.training.test_training_run import workers


@pytest.fixture(scope="module", params=[tiny_bert, tiny_llama], ids=["bert", "llama"])
def shop_with_model(request: pytest.FixtureRequest, shop, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A language model and the vectors that it gives for the shop's texts."""
    folder = tmp_path_factory.mktemp("model")
    model = request.param(folder / "model")
    texts = json.loads((shop.pretrained / "texts.json").read_text())
    mask = np.array([text is not None for text in texts])
    made = TextEncoder.load(str(model)).encode([text for text in texts if text is not None])
    vectors = np.zeros((len(texts), made.shape[1]), dtype=np.float32)
    vectors[mask] = made
    pretrained = folder / "pretrained"
    pretrained.mkdir()
    np.save(pretrained / "text_vectors.npy", vectors)
    np.save(pretrained / "text_mask.npy", mask)
    (pretrained / "texts.json").write_text(json.dumps(texts))
    return model, pretrained


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_tuned_language_model_goes_into_the_bundle(tuning: str, shop_with_model, shop, settings, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    model, pretrained = shop_with_model
    config = settings(tuning=tuning, epochs=5, lm_learning_rate=2e-2, pretrained={"model": str(model)})
    run = {"config": config.model_dump(mode="json"), "protocol": "leave_one_out", "out": str(tmp_path)}
    (tmp_path / "run.json").write_text(json.dumps(run | {"prepared": str(shop.prepared), "pretrained": str(pretrained)}))
    Training(Run.load(tmp_path / "run.json"), World())()
    bundle = Bundle.load(tmp_path / "bundle")
    before = torch.from_numpy(np.load(pretrained / "text_vectors.npy"))
    content = bundle.recommender.content
    assert not torch.allclose(content.text[content.has_text], before[content.has_text], atol=1e-2)
    # The language model in the bundle gives the vectors that the bundle holds, so an item added later fits in.
    texts = json.loads((pretrained / "texts.json").read_text())
    again = TextEncoder.load(str(tmp_path / "bundle" / "language_model")).encode([text for text in texts if text is not None])
    np.testing.assert_allclose(again, content.text[content.has_text].numpy(), atol=5e-3)
    twin = bundle.items.iloc[[1]].assign(item_id="twin")
    moved = bundle.reindex(pd.concat([bundle.items.iloc[[1]], twin], ignore_index=True), None)
    torch.testing.assert_close(moved.content.text[1], moved.content.text[0], atol=5e-3, rtol=0)
    assert np.isfinite(moved.scores(Histories.of_items([[0], []]))).all()


@pytest.fixture(scope="module")
def bert(shop, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny BERT and a pretrained folder of its texts."""
    folder = tmp_path_factory.mktemp("bert")
    model = tiny_bert(folder / "model")
    np.save(folder / "text_mask.npy", np.load(shop.pretrained / "text_mask.npy"))
    np.save(folder / "text_vectors.npy", np.zeros((30, 32), dtype=np.float32))
    (folder / "texts.json").write_text((shop.pretrained / "texts.json").read_text())
    return model, folder


def curve(out: Path) -> list[float]:
    return [line["loss"] for line in json.loads((out / "curves.json").read_text())]


def test_tuning_on_two_workers_gives_the_curve_of_one(bert, shop, settings, tmp_path: Path) -> None:
    """So does a language model that is shared out over the workers, and the bundle has all of it."""
    model, pretrained = bert
    for name, more in {"one": {}, "two": {"workers": 2}, "sharded": {"workers": 2, "lm_sharded": True}}.items():
        config = settings(tuning="full", epochs=2, lm_learning_rate=1e-3, pretrained={"model": str(model)}, **more)
        fine_tune(config, "leave_one_out", shop.prepared, pretrained, tmp_path / name)
    for name in ("two", "sharded"):
        assert curve(tmp_path / name) == pytest.approx(curve(tmp_path / "one"), rel=1e-4)
    weights = [load_file(tmp_path / name / "bundle" / "language_model" / "model.safetensors") for name in ("one", "sharded")]
    assert weights[0].keys() == weights[1].keys()
    for name, whole in weights[0].items():
        np.testing.assert_allclose(weights[1][name], whole, atol=1e-4)
    assert not list((tmp_path / "sharded").glob("*.shards"))


@pytest.mark.cluster
def test_a_killed_worker_goes_on_from_the_shards(bert, shop, settings, tmp_path: Path) -> None:
    """Once in the search and once in the refit."""
    model, pretrained = bert
    config = settings(tuning="full", epochs=4, workers=2, lm_sharded=True, lm_learning_rate=1e-3, pretrained={"model": str(model)})
    fine_tune(config, "temporal", shop.prepared, pretrained, tmp_path / "whole")
    killed: list[str] = []

    def kill_one(line: dict[str, Any]) -> None:
        if line["epoch"] == 2 and line["phase"] not in killed:
            killed.append(line["phase"])
            os.kill(workers(tmp_path / "cut" / "run.json")[-1], signal.SIGKILL)

    fine_tune(config, "temporal", shop.prepared, pretrained, tmp_path / "cut", kill_one)
    assert killed == ["search", "refit"]
    assert curve(tmp_path / "cut") == curve(tmp_path / "whole")
    for name in ("model.safetensors", "language_model/model.safetensors"):
        first, second = (load_file(tmp_path / run / "bundle" / name) for run in ("whole", "cut"))
        for key in first:
            np.testing.assert_array_equal(first[key], second[key])


def test_tuning_without_texts_is_refused(shop, settings, write_run, tmp_path: Path) -> None:
    pretrained = tmp_path / "pretrained"
    pretrained.mkdir()
    for name in ("text_vectors.npy", "text_mask.npy"):
        np.save(pretrained / name, np.load(shop.pretrained / name))
    path = write_run(settings(tuning="lora"), tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pretrained": str(pretrained)}))
    with pytest.raises(InputError, match=r"texts\.json: missing"):
        Training(Run.load(path), World())()
