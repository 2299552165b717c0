"""Text vectors by an encoder and by a decoder: they depend on the text alone, and survive saving and adapting."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5Model

from nightloom.core.errors import InputError
from nightloom.encoders.text import TextEncoder
from tests.tiny_models import WORDS, tiny_bert, tiny_llama

TEXTS = ["toy story", "star wars and the dark night of the lost king", "heat 1995", "", "love", "Ünïcödé 你好"]


@pytest.fixture(scope="module", params=[tiny_bert, tiny_llama], ids=["bert", "llama"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return request.param(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def shared(folder: Path) -> TextEncoder:
    torch.set_num_threads(1)
    return TextEncoder.load(str(folder))


@pytest.fixture
def encoder(folder: Path) -> TextEncoder:
    return TextEncoder.load(str(folder))


def alone(encoder: TextEncoder, texts: list[str]) -> NDArray[np.float32]:
    return np.concatenate([encoder.encode([text]) for text in texts])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join), min_size=1, max_size=8), batch_tokens=st.integers(1, 200)
)
def test_a_vector_does_not_depend_on_the_batch(shared: TextEncoder, texts: list[str], batch_tokens: int) -> None:
    np.testing.assert_allclose(shared.encode(texts, batch_tokens=batch_tokens), alone(shared, texts), atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_every_pooling_ignores_padding_whatever_side_the_tokenizer_likes(folder: Path, pooling: str) -> None:
    encoder = TextEncoder.load(str(folder), pooling=pooling)
    encoder.tokenizer.padding_side = "left"
    batch = encoder(encoder.tokenize(TEXTS)).detach().numpy()
    assert batch.shape == (len(TEXTS), encoder.dim)
    assert np.isfinite(batch).all()
    np.testing.assert_allclose(batch, alone(encoder, TEXTS), atol=1e-5)


def test_auto_is_mean_for_an_encoder_and_the_last_token_for_a_decoder(tmp_path: Path) -> None:
    for build, pooling in ((tiny_bert, "mean"), (tiny_llama, "last")):
        folder = build(tmp_path / pooling)
        auto, hidden = TextEncoder.load(str(folder)), TextEncoder.load(str(folder), pooling=pooling)
        assert auto.pooling == pooling
        ids = torch.tensor([auto.tokenizer("toy story")["input_ids"]])
        states = hidden.model(input_ids=ids).last_hidden_state[0]
        expected = states.mean(0) if pooling == "mean" else states[-1]
        np.testing.assert_allclose(auto.encode(["toy story"])[0], expected.detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("module", [{"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, {"pooling_mode": "cls"}])
def test_auto_follows_the_pooling_that_a_sentence_model_says(module: dict, tmp_path: Path) -> None:
    folder = tiny_bert(tmp_path)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(module))
    assert TextEncoder.load(str(folder)).pooling == "cls"


def test_long_texts_are_cut_and_never_beyond_what_the_model_takes(folder: Path) -> None:
    encoder = TextEncoder.load(str(folder), max_tokens=6)
    assert encoder.tokenize(["star wars " * 50, "toy"]).ids.shape == (2, 6)
    wide = TextEncoder.load(str(folder), max_tokens=4096)
    assert wide.max_tokens == 128
    assert np.isfinite(wide.encode(["star wars " * 500])).all()


def test_progress_ends_at_all_and_no_text_gives_no_vector(shared: TextEncoder) -> None:
    told: list[tuple[int, int]] = []
    shared.encode(TEXTS, lambda done, total: told.append((done, total)), batch_tokens=12)
    assert told == sorted(told)
    assert len(told) > 1
    assert told[-1] == (len(TEXTS), len(TEXTS))
    assert shared.encode([]).shape == (0, shared.dim)


def test_a_saved_encoder_gives_the_same_vectors_from_its_folder_alone(folder: Path, tmp_path: Path) -> None:
    encoder = TextEncoder.load(str(folder), pooling="cls", max_tokens=5)
    encoder.save(tmp_path / "saved")
    again = TextEncoder.load(str(tmp_path / "saved"))
    assert (again.pooling, again.max_tokens, again.dim) == ("cls", 5, encoder.dim)
    assert not list((tmp_path / "saved").glob("*.bin"))
    np.testing.assert_array_equal(again.encode(TEXTS), encoder.encode(TEXTS))


def train_a_little(encoder: TextEncoder) -> None:
    optimizer = torch.optim.SGD([weight for weight in encoder.parameters() if weight.requires_grad], lr=0.5)
    for _ in range(5):
        optimizer.zero_grad()
        encoder(encoder.tokenize(TEXTS))[:, 0].sum().backward()
        optimizer.step()


def test_with_lora_only_adapters_train_and_the_merged_save_equals_the_live_model(encoder: TextEncoder, tmp_path: Path) -> None:
    before = encoder.encode(TEXTS)
    frozen = {name: weight.clone() for name, weight in encoder.model.named_parameters()}
    encoder.add_lora(rank=4)
    np.testing.assert_array_equal(encoder.encode(TEXTS), before)  # an adapter begins as zero
    trained = [name for name, weight in encoder.named_parameters() if weight.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    train_a_little(encoder)
    after = encoder.encode(TEXTS)
    assert np.abs(after - before).max() > 1e-2
    kept = {
        name.removeprefix("base_model.model.").replace(".base_layer", ""): weight
        for name, weight in encoder.model.named_parameters()
        if "lora_" not in name
    }
    assert kept.keys() == frozen.keys()
    assert all(torch.equal(kept[name], weight) for name, weight in frozen.items())
    encoder.save(tmp_path)
    np.testing.assert_allclose(TextEncoder.load(str(tmp_path)).encode(TEXTS), after, atol=1e-5)
    np.testing.assert_array_equal(encoder.encode(TEXTS), after)  # saving leaves the live adapters as they were


def test_full_tuning_reaches_every_weight(encoder: TextEncoder) -> None:
    encoder(encoder.tokenize(TEXTS)).square().sum().backward()
    assert [name for name, weight in encoder.named_parameters() if weight.grad is None] == []


def test_dropout_is_off_in_encode_and_the_mode_is_given_back(tmp_path: Path) -> None:
    encoder = TextEncoder.load(str(tiny_bert(tmp_path)))
    expected = encoder.encode(TEXTS)
    encoder.train()
    np.testing.assert_array_equal(encoder.encode(TEXTS), expected)
    assert encoder.training


def test_lora_fits_gpt2_whose_weights_lie_the_other_way(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "gpt2")
    for stale in ("config.json", "generation_config.json", "model.safetensors"):
        (folder / stale).unlink()
    GPT2LMHeadModel(GPT2Config(vocab_size=200, n_embd=32, n_layer=2, n_head=4, n_positions=128)).save_pretrained(folder)
    encoder = TextEncoder.load(str(folder))
    assert encoder.pooling == "last"
    encoder.add_lora()
    train_a_little(encoder)
    encoder.save(tmp_path / "saved")
    np.testing.assert_allclose(TextEncoder.load(str(tmp_path / "saved")).encode(TEXTS), encoder.encode(TEXTS), atol=1e-4)


def test_loading_and_saving_are_silent(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    encoder = TextEncoder.load(str(folder))
    encoder.add_lora()
    encoder.encode(TEXTS)
    encoder.save(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_weights_that_lack_a_tensor_are_refused(tmp_path: Path) -> None:
    folder = tiny_bert(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lack 1 tensors of the bert model.*encoder\.layer\.1\.output\.dense\.weight"):
        TextEncoder.load(str(folder))


def test_a_truncated_file_and_a_missing_config_are_refused(tmp_path: Path) -> None:
    folder = tiny_bert(tmp_path)
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="can not load this model"):
        TextEncoder.load(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"can not load this model.*must hold config\.json"):
        TextEncoder.load(str(folder))


def test_a_model_with_code_of_its_own_is_refused_and_the_code_does_not_run(tmp_path: Path) -> None:
    folder = tiny_bert(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "homemade", "auto_map": {"AutoConfig": "code.C", "AutoModel": "code.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(InputError, match="can not load this model"):
        TextEncoder.load(str(folder))
    assert not (tmp_path / "ran").exists()


def test_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path)
    T5Model(T5Config(vocab_size=200, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)).save_pretrained(folder)
    with pytest.raises(InputError, match="t5 is an encoder-decoder"):
        TextEncoder.load(str(folder), pooling="mean")


def test_minilm_puts_like_texts_closer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    encoder = TextEncoder.load("sentence-transformers/all-MiniLM-L6-v2")
    assert (encoder.dim, encoder.pooling) == (384, "mean")
    vectors = encoder.encode(["a film about soldiers at war", "a movie on a battle in the army", "a cartoon with cute kittens"])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert vectors[0] @ vectors[1] > 0.5 > vectors[0] @ vectors[2] + 0.1
