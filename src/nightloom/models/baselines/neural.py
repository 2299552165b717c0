"""The trainer that the small neural baselines (mlp, gru) share: epochs, early stopping, one safetensors file."""

from __future__ import annotations

import json
import time
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from nightloom.core.errors import TrainingError
from nightloom.core.ragged import offsets_among, owners
from nightloom.core.ranking import ndcg_sum
from nightloom.core.recommender import Recommender
from nightloom.core.sequences import Histories, Queries
from nightloom.models.baselines.interactions import popularity_prior
from nightloom.models.baselines.profile import positive_events
from nightloom.models.scorers.popularity import positive_counts
from nightloom.models.sequential.network import inference

MOST_HELD_OUT = 5000
"""Histories that early stopping ranks."""

ANSWERS = 256
"""Histories that early stopping scores at once."""

CLIP_NORM = 1.0


class NeuralRecommender(Recommender):
    """A network over positive events, fitted with AdamW; a subclass gives the network and a step's loss.

    The latest event of each history is held out to find the number of epochs (the best NDCG@10 over the whole catalogue).
    A fresh network is then trained on everything for as many epochs. All random numbers follow from the seed; the caller's
    generator is left as it was.

    Attributes:
        curves: an epoch of the search each: `epoch`, `loss` (mean of a target, nats), `validation_ndcg_at_10`, `seconds`.
    """

    settings: ClassVar[tuple[str, ...]]
    net: Any
    epochs: int
    patience: int
    learning_rate: float
    weight_decay: float
    seed: int

    @abstractmethod
    def _network(self) -> nn.Module:
        """A fresh network for `self.n_items` items."""

    @abstractmethod
    def _losses(self, histories: Histories, random: np.random.Generator) -> Iterator[tuple[Tensor, int]]:
        """The steps of one epoch: summed loss and number of targets of each, computed lazily."""

    @abstractmethod
    def _logits(self, histories: Histories) -> NDArray[np.float32]:
        """What the network says of every item, float32 [len(histories), n_items]; histories have positive events alone."""

    def fit(self, train: Histories, n_items: int) -> Self:
        """Search for the number of epochs, then learn from everything."""
        self.n_items = n_items
        self.counts = positive_counts(train, n_items)
        self.curves: list[dict[str, Any]] = []
        liked = positive_events(train)
        with torch.random.fork_rng(devices=[]):
            kept, held = hold_out(liked, self.seed)
            self._train(liked, self._search(kept, held) if len(held) else self.epochs)
        self.net.eval()  # and for good: threads that ask at once share its mode
        return self

    def scores(self, histories: Histories) -> NDArray[np.float32]:
        """Logits, float32 [len(histories), n_items]; -inf for items never seen in training."""
        with torch.no_grad(), inference(self.net):
            return self._logits(positive_events(histories)) + popularity_prior(self.counts)

    def save(self, folder: Path) -> None:
        """Write `<family>.safetensors`: network, counts, and the settings as its metadata."""
        tensors = {f"net.{name}": value.contiguous() for name, value in self.net.state_dict().items()}
        settings = json.dumps({name: getattr(self, name) for name in self.settings})
        save_file(tensors | {"counts": torch.from_numpy(self.counts)}, folder / f"{self.family}.safetensors", {"settings": settings})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        with safe_open(folder / f"{cls.family}.safetensors", framework="pt") as content:
            model = cls(**json.loads(content.metadata()["settings"]))
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
        model.counts = tensors.pop("counts").numpy()
        model.n_items = len(model.counts)
        model.net = model._network()
        model.net.load_state_dict({name.removeprefix("net."): value for name, value in tensors.items()})
        model.net.eval()
        return model

    def _search(self, kept: Histories, held: Queries) -> int:
        """The epoch after which NDCG@10 on the held-out events was best."""
        self._start()
        best, best_epoch = -1.0, 1
        for epoch in range(1, self.epochs + 1):
            began = time.monotonic()
            loss, ndcg = self._epoch(kept, epoch), self._ndcg(held)
            line = {"epoch": epoch, "loss": loss, "validation_ndcg_at_10": ndcg, "seconds": round(time.monotonic() - began, 3)}
            self.curves.append(line)
            if ndcg > best:
                best, best_epoch = ndcg, epoch
            if epoch - best_epoch >= self.patience:
                break
        return best_epoch

    def _train(self, liked: Histories, epochs: int) -> None:
        self._start()
        for epoch in range(1, epochs + 1):
            self._epoch(liked, epoch)

    def _start(self) -> None:
        torch.manual_seed(self.seed)
        self.net = self._network()
        # Weight decay on whole tables of vectors would pull rare items to zero: theirs is the linear layers' alone.
        matrices = {layer.weight for layer in self.net.modules() if isinstance(layer, nn.Linear)}
        others = [parameter for parameter in self.net.parameters() if parameter not in matrices]
        groups = [{"params": list(matrices), "weight_decay": self.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self._optimizer = torch.optim.AdamW(groups, lr=self.learning_rate)

    def _epoch(self, histories: Histories, epoch: int) -> float:
        """Train for one epoch; gives the mean loss of a target."""
        self.net.train()
        total, targets = 0.0, 0
        for loss, count in self._losses(histories, np.random.default_rng([self.seed, epoch])):
            self._optimizer.zero_grad()
            (loss / count).backward()
            nn.utils.clip_grad_norm_(self.net.parameters(), CLIP_NORM)
            self._optimizer.step()
            total, targets = total + float(loss.detach()), targets + count
        if not np.isfinite(total):
            raise TrainingError(
                f"baseline {self.family}, epoch {epoch}: the loss is {total}. Lower its learning_rate ({self.learning_rate})."
            )
        return total / max(targets, 1)

    def _ndcg(self, held: Queries) -> float:
        """NDCG@10 over the whole catalogue."""
        parts = [held.take(np.arange(first, min(first + ANSWERS, len(held)))) for first in range(0, len(held), ANSWERS)]
        return sum(ndcg_sum(self.scores(part.histories.packed()), part, exclude_seen=True, model=self.family) for part in parts) / len(held)


def hold_out(liked: Histories, seed: int) -> tuple[Histories, Queries]:
    """Histories less their latest event, and that event as a query; histories of one event stay whole and give none."""
    long = liked.lengths > 1
    last = liked.offsets[1:][long] - 1
    keep = np.ones(len(liked.items), dtype=bool)
    keep[last] = False
    kept = liked.of_events(keep, offsets_among(liked.offsets, keep))
    rows, targets = np.flatnonzero(long), liked.items[last]
    known = kept.take(rows)
    # An item that was seen before is masked in the ranking, so it is no query.
    owner = owners(known.offsets)
    fresh = np.bincount(owner, known.items == targets[owner], minlength=len(known)) == 0
    asked = np.flatnonzero(fresh)
    if len(asked) > MOST_HELD_OUT:
        asked = np.sort(np.random.default_rng(seed).choice(asked, MOST_HELD_OUT, replace=False))
    return kept, Queries(rows[asked], known.take(asked), np.arange(len(asked) + 1), targets[asked])
