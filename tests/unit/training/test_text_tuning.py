"""LoRA and full tuning of a tiny BERT and a tiny Llama, end to end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from nightloom.core.errors import InputError
from nightloom.core.sequences import Histories
from nightloom.encoders.text import TextEncoder
from nightloom.packaging.bundle import Bundle
from nightloom.training.distributed import World
from nightloom.training.fine_tune import fine_tune
from nightloom.training.run import Training
from nightloom.training.run_json import Run
from tests.tiny_models import tiny_bert, tiny_llama


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


def test_tuning_on_two_workers_gives_the_curve_of_one(shop, settings, tmp_path: Path) -> None:
    model = tiny_bert(tmp_path / "model")
    np.save(tmp_path / "text_mask.npy", np.load(shop.pretrained / "text_mask.npy"))
    np.save(tmp_path / "text_vectors.npy", np.zeros((30, 32), dtype=np.float32))
    (tmp_path / "texts.json").write_text((shop.pretrained / "texts.json").read_text())
    curves = []
    for workers in (1, 2):
        config = settings(tuning="full", epochs=2, workers=workers, lm_learning_rate=1e-3, pretrained={"model": str(model)})
        fine_tune(config, "leave_one_out", shop.prepared, tmp_path, tmp_path / str(workers))
        curves.append([line["loss"] for line in json.loads((tmp_path / str(workers) / "curves.json").read_text())])
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)


def test_tuning_without_texts_is_refused(shop, settings, write_run, tmp_path: Path) -> None:
    pretrained = tmp_path / "pretrained"
    pretrained.mkdir()
    for name in ("text_vectors.npy", "text_mask.npy"):
        np.save(pretrained / name, np.load(shop.pretrained / name))
    path = write_run(settings(tuning="lora"), tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pretrained": str(pretrained)}))
    with pytest.raises(InputError, match=r"texts\.json: missing"):
        Training(Run.load(path), World())()
