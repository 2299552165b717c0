"""Tuning the language model along with the recommender (LoRA or full).

In each step the texts of some of the batch's items are encoded again, with gradients; all other items keep the
vectors of the last refresh. The texts are shared out over the workers: each encodes its share, and all get all
vectors. The gradient of a vector, summed over the workers, goes back through the worker that made it. Dropout
inside the language model is off, so the vectors do not depend on the number of workers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nightloom.core.errors import InputError
from nightloom.training.distributed import World

if TYPE_CHECKING:
    from nightloom.encoders.text import TextEncoder
    from nightloom.training.run_json import Run
    from nightloom.training.sharding import ShardedModel

TEXTS_AT_ONCE, EMPTY = 32, "-"
"""Texts of a forward pass of a model that is shared out, and the text that stands in where a worker has none."""
TEXTS_PER_STEP = 256
"""Most texts that are encoded with gradients in a step; of more, a random part is."""


@dataclass(frozen=True)
class StepText:
    """Text vectors of one step.

    Attributes:
        table: float32 [items, text_dim], with the step's vectors in their rows.
        vectors: float32 [n, text_dim], the step's vectors, a leaf of this worker's graph.
        share: float32 [part of n, text_dim], those that this worker made, tied to the language model.
        span: which of `vectors` they are.
        world: this worker among all.
        sharded: whether the language model is shared out: its backward pass is then one of all workers together.
    """

    table: Tensor
    vectors: Tensor
    share: Tensor
    span: slice
    world: World
    sharded: bool = False

    def backward(self) -> None:
        """Send the gradient of this step's vectors, summed over the workers, back through the language model."""
        grad = self.world.sum_(self.vectors.grad if self.vectors.grad is not None else torch.zeros_like(self.vectors))
        mine = grad[self.span]
        if self.sharded and not len(mine):
            mine = torch.zeros_like(self.share)  # of a text that stands in where this worker has none
        if len(self.share):
            self.share.backward(mine)


class TextTuner:
    """The language model, its trainable weights, and the texts of the catalogue.

    Args:
        encoder: the language model, with adapters when only those are trained.
        texts: text of each item, None where it has none.
        table: float32 [items, text_dim], vectors to begin with.
        world: this worker among all.
        shard: whether the language model's weights are shared out over the workers.
    """

    def __init__(self, encoder: TextEncoder, texts: list[str | None], table: Tensor, world: World, *, shard: bool = False) -> None:
        self.texts, self.table, self.world = texts, table.to(world.device), world
        self.sharded: ShardedModel | None = None
        if shard and world.size > 1:
            from nightloom.training.sharding import ShardedModel

            self.sharded = ShardedModel(encoder.model, world)
        self.encoder = encoder.to(world.device).eval()
        self.whole: dict[str, Any] | None = None
        self.parameters: list[nn.Parameter] = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
        self.with_text = np.array([text is not None for text in texts], dtype=bool)

    @classmethod
    def of(cls, run: Run, table: NDArray[np.float32], world: World) -> TextTuner | None:
        """The tuner that a run asks for; None when the language model stays frozen or there is no text.

        Raises:
            InputError: the texts are missing, or do not belong to the vectors.
        """
        mode, model = run.config.training.tuning, run.config.pretrained
        if mode == "frozen" or not run.config.model.use_text or table.shape[1] == 0:
            return None
        path = run.pretrained / "texts.json"
        if not path.is_file():
            raise InputError(f"{path}: missing; tuning the language model ({mode}) needs the texts. Run load_pretrained again.")
        texts = json.loads(path.read_text(encoding="utf-8"))
        if len(texts) != len(table):
            raise InputError(f"{path}: {len(texts):,} texts for {len(table):,} items. Run load_pretrained again.")
        from nightloom.encoders.text import TextEncoder  # transformers takes seconds to import: only a tuned run pays

        torch.manual_seed(run.config.training.seed)
        encoder = TextEncoder.load(model.model, pooling=model.pooling, max_tokens=model.max_tokens, sha256=model.sha256)
        if mode == "lora":
            encoder.add_lora()
        return cls(encoder, texts, torch.from_numpy(table), world, shard=run.config.training.lm_sharded)

    def encode(self, items: NDArray[np.int64], seed: int) -> StepText:
        """Encode the texts of a step's items again.

        Args:
            items: int64 [n], dense ids, ascending; the same at every worker.
            seed: draws which of them, when they are many.
        """
        items = items[self.with_text[items]]
        if len(items) > TEXTS_PER_STEP:
            items = np.sort(np.random.default_rng(seed).choice(items, TEXTS_PER_STEP, replace=False))
        cuts = np.linspace(0, len(items), self.world.size + 1).astype(int)
        span = slice(int(cuts[self.world.rank]), int(cuts[self.world.rank + 1]))
        mine = [text for item in items[span] if (text := self.texts[item]) is not None]
        stand_in = [] if mine or self.sharded is None else [EMPTY]
        share = self.encoder(self.encoder.tokenize([*mine, *stand_in])) if mine or stand_in else self.table[:0]
        vectors = self.world.gather(share.detach()[: len(mine)], np.diff(cuts).tolist()).requires_grad_()
        table = self.table.index_put((torch.from_numpy(items).to(self.world.device),), vectors)
        return StepText(table, vectors, share, span, self.world, self.sharded is not None)

    @torch.no_grad()
    def refresh(self) -> Tensor:
        """Vectors of all texts by the language model as it is now, float32 [items, text_dim]; each worker encodes a share."""
        items = np.flatnonzero(self.with_text)
        cuts = np.linspace(0, len(items), self.world.size + 1).astype(int)
        mine = [text for item in items[cuts[self.world.rank] : cuts[self.world.rank + 1]] if (text := self.texts[item]) is not None]
        share = self._encoded(mine, int(np.diff(cuts).max(initial=0)))
        vectors = self.world.gather(share, np.diff(cuts).tolist())
        self.table = self.table.clone()
        self.table[torch.from_numpy(items).to(self.world.device)] = vectors
        return self.table

    def _encoded(self, mine: list[str], most: int) -> Tensor:
        """Vectors of this worker's texts; `most` is the largest number that a worker has."""
        if self.sharded is None:
            return torch.from_numpy(self.encoder.encode(mine)).to(self.world.device) if mine else self.table[:0]
        # Each forward pass of a model that is shared out is one of all workers together: all make as many, and some with a stand-in.
        order = sorted(range(len(mine)), key=lambda row: len(mine[row]))
        vectors = self.table.new_empty(len(mine), self.table.shape[1])
        for start in range(0, most, TEXTS_AT_ONCE):
            rows = order[start : start + TEXTS_AT_ONCE]
            made = self.encoder(self.encoder.tokenize([mine[row] for row in rows] or [EMPTY]))
            vectors[rows] = made[: len(rows)]
        return vectors

    def gather(self) -> None:
        """Bring the weights of a model that is shared out together at rank 0, which saves it; all workers call it together."""
        if self.sharded is not None:
            self.whole = self.sharded.whole()

    def save(self, folder: Path) -> None:
        """Write the tuned language model so that `TextEncoder.load(folder)` reads it (adapters merged, safetensors)."""
        self.encoder.save(folder, self.whole)
