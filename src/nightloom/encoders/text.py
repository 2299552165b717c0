"""Text vectors by a pretrained language model: BERT-class encoders and GPT-class decoders alike.

The model is read from safetensors, in float32, and never with code of its own (`trust_remote_code` is off).
Texts are padded on the right: a decoder's tokens then never see the padding and keep their positions. The last
real token is found by the mask. So a vector does not depend on the batch that its text is in.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nightloom.core.errors import InputError
from nightloom.core.files import write_json
from nightloom.encoders.loading import load_model, loading, quiet
from nightloom.encoders.weights import Weights, resolve

Pooling = Literal["mean", "cls", "last"]

SETTINGS = "text_encoder.json"
"""Beside a saved model: how it was pooled and cut, so that loading it needs no more than the folder."""

MAX_TOKENS = 64
"""Longest text, in tokens, where nothing else is said."""

CHUNK = 8192
"""Texts that are tokenized and sorted by length together."""


@dataclass(frozen=True)
class Tokens:
    """A padded batch of texts.

    Attributes:
        ids: int64 [n, tokens].
        mask: int64 [n, tokens], 1 on real tokens, 0 on padding.
    """

    ids: Tensor
    mask: Tensor


class TextEncoder(nn.Module):
    """A language model with pooling: texts in, one vector a text out.

    Args:
        model: a transformers model without a head.
        tokenizer: its tokenizer.
        pooling: how token vectors become one.
        max_tokens: longest text, in tokens; the rest is cut.
        digest: SHA-256 of the weights that it was loaded from.

    Attributes:
        dim: width of a vector.
        pad: the token that fills a batch up.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, pooling: Pooling, max_tokens: int, digest: str) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.pooling, self.max_tokens, self.digest = pooling, max_tokens, digest
        self.dim = int(cast(Any, model.config).hidden_size)
        given = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id)
        self.pad = next((token for token in given if token is not None), 0)

    @classmethod
    def load(
        cls,
        model: str,
        *,
        pooling: Literal["auto", "mean", "cls", "last"] = "auto",
        max_tokens: int | None = None,
        sha256: str | None = None,
    ) -> Self:
        """Find, check and load a model.

        Args:
            model: hub name or local folder (`nightloom.encoders.weights.resolve`).
            pooling: auto takes what the folder says (a saved encoder, or the pooling module of sentence-transformers),
                else mean for encoders and the last token for decoders.
            max_tokens: longest text; None: as saved in the folder, else 64. Never more than the model takes.
            sha256: expected digest of the weights.

        Raises:
            InputError: the model is not found, refused, or of a kind that can not be used.
        """
        return cls.from_weights(resolve(model, sha256), pooling=pooling, max_tokens=max_tokens)

    @classmethod
    def from_weights(
        cls, weights: Weights, *, pooling: Literal["auto", "mean", "cls", "last"] = "auto", max_tokens: int | None = None
    ) -> Self:
        """Load a model that is already found and checked; see `load`."""
        from transformers import AutoTokenizer

        folder = weights.path
        chosen = pooling_of(folder, pooling)
        model = load_model(folder)
        with loading(folder):
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        limit = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length)
        asked = max_tokens or _read(folder / SETTINGS).get("max_tokens", MAX_TOKENS)
        return cls(model, tokenizer, chosen, int(min(asked, limit)), weights.sha256).eval()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Texts as a padded batch on the model's device."""
        return self._pad_batch(self._token_ids(texts))

    def forward(self, batch: Tokens) -> Tensor:
        """Vectors of a batch, float32 [n, dim], with gradients where weights are trained."""
        extra = {"use_cache": False} if self.pooling == "last" else {}
        hidden = self.model(input_ids=batch.ids, attention_mask=batch.mask, **extra).last_hidden_state
        if self.pooling == "mean":
            mask = batch.mask.unsqueeze(-1).to(hidden.dtype)
            return (hidden * mask).sum(1) / mask.sum(1)
        if self.pooling == "cls":
            return hidden[:, 0]
        last = batch.mask * (batch.mask.cumsum(1) == batch.mask.sum(1, keepdim=True))  # no lookup: a traced one would keep its batch's size
        return (hidden * last.unsqueeze(-1).to(hidden.dtype)).sum(1)

    @torch.no_grad()
    def encode(
        self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None, batch_tokens: int | None = None
    ) -> NDArray[np.float32]:
        """Vectors of many texts, without gradients and without dropout.

        Texts of like length share a batch, so little is spent on padding.

        Args:
            texts: any number of texts.
            progress: told (texts done, all texts) after each batch.
            batch_tokens: tokens in a batch, padding included. None: 1,024 on a CPU, where more is no faster, else 16,384.

        Returns:
            float32 [len(texts), dim], in the order of the texts.
        """
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        training, done = self.training, 0
        budget = batch_tokens or (1024 if self.device.type == "cpu" else 16384)
        self.eval()
        try:
            for start in range(0, len(texts), CHUNK):
                ids = self._token_ids(texts[start : start + CHUNK])
                order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
                while order:
                    size = max(1, budget // len(ids[order[-1]]))
                    order, rows = order[:-size], order[-size:]
                    vectors[start + np.array(rows)] = self(self._pad_batch([ids[row] for row in rows])).cpu().numpy()
                    done += len(rows)
                    if progress:
                        progress(done, len(texts))
        finally:
            self.train(training)
        return vectors

    def add_lora(self, rank: int = 8, alpha: float = 16.0) -> None:
        """Freeze the model and add low-rank adapters, the only weights that then train.

        Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models"; on every linear layer of the blocks, attention
        and feed-forward alike, since query and value alone fall short of full tuning (Dettmers et al. 2023, "QLoRA", fig. 2).

        Args:
            rank: rank of the update of a weight.
            alpha: the update is scaled by alpha / rank.

        Raises:
            InputError: peft is not installed.
        """
        try:
            from peft import LoraConfig, get_peft_model
        except ImportError as error:
            raise InputError("training.tuning: lora needs the package peft. Run `pip install 'nightloom[night]'`.") from error
        from transformers.pytorch_utils import Conv1D

        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,
            target_modules="all-linear",
            fan_in_fan_out=any(isinstance(module, Conv1D) for module in self.model.modules()),  # GPT-2 keeps weights transposed
        )
        with quiet():
            self.model = get_peft_model(cast(Any, self.model), config)

    def save(self, folder: Path, weights: dict[str, Any] | None = None) -> None:
        """Write in the Hugging Face layout (safetensors, adapters merged) so that `load(folder)` gives the same vectors.

        Args:
            folder: where to.
            weights: all weights by name, of a model that is shared out over workers; None: those of the model here.
        """
        model = cast(Any, self.model)
        if hasattr(model, "merge_and_unload"):
            model = copy.deepcopy(model).merge_and_unload()
        folder.mkdir(parents=True, exist_ok=True)
        with quiet():
            model.save_pretrained(folder, state_dict=weights)
            self.tokenizer.save_pretrained(folder)
        write_json(folder / SETTINGS, {"pooling": self.pooling, "max_tokens": self.max_tokens})

    def _token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, cut on the right; at least one (a decoder's tokenizer may give none for "")."""
        if not len(texts):
            return []
        self.tokenizer.truncation_side = "right"
        encoded = self.tokenizer(list(texts), truncation=True, max_length=self.max_tokens, padding=False)["input_ids"]
        return [ids or [self.pad] for ids in encoded]

    def _pad_batch(self, ids: list[list[int]]) -> Tokens:
        width = max(map(len, ids), default=0)
        padded = torch.tensor([row + [self.pad] * (width - len(row)) for row in ids], dtype=torch.int64).reshape(len(ids), width)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids], dtype=torch.int64).reshape(len(ids), width)
        return Tokens(padded.to(self.device), mask.to(self.device))


def pooling_of(folder: Path, pooling: Literal["auto", "mean", "cls", "last"] = "auto") -> Pooling:
    """How a model's token vectors become one; auto is answered from its files, without loading the weights.

    Raises:
        InputError: the model is an encoder-decoder, or its config.json can not be read.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

    with loading(folder):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    if config.is_encoder_decoder:
        raise InputError(f"{folder}: {config.model_type} is an encoder-decoder. Name a BERT-class encoder or a GPT-class decoder.")
    if pooling != "auto":
        return pooling
    if saved := _read(folder / SETTINGS):
        return cast(Pooling, saved["pooling"])
    module = _read(folder / "1_Pooling" / "config.json")  # as sentence-transformers writes it, by its old keys and its new one
    if module.get("pooling_mode_cls_token") or module.get("pooling_mode") == "cls":
        return "cls"
    if module.get("pooling_mode_lasttoken") or module.get("pooling_mode") == "lasttoken":
        return "last"
    decodes = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and config.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return "last" if decodes and not module else "mean"


def _read(path: Path) -> dict[str, Any]:
    """A JSON file's content; empty where there is no such file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}). Copy the model folder again.") from error
    return content if isinstance(content, dict) else {}
