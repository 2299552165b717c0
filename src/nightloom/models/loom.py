"""Family nightloom: item fusion and history transformer over one space, fused late with companions that need no training."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nightloom.data.sequences import Histories
from nightloom.errors import InputError
from nightloom.models.base import Companion, Recommender
from nightloom.models.companions import CLASSES, NETWORK, Scores, fit_companions, fuse
from nightloom.models.fusion import ItemContent, ItemFusion
from nightloom.models.label_chances import LabelChances
from nightloom.models.label_counters import LabelCounters
from nightloom.models.label_head import LabelHead
from nightloom.models.purchase import PurchaseHead
from nightloom.models.tallies import KEPT_DAYS, Tallies
from nightloom.models.transformer import HistoryEncoder, Packed
from nightloom.models.windows import Windows

if TYPE_CHECKING:
    from nightloom.config import ModelConfig

ANSWER_TOKENS = 16384
"""Padded tokens of histories that are encoded at once when answering."""

PRETRAINED = ("text", "image")
"""What of a catalogue's content is kept in half precision."""


@dataclass(frozen=True)
class Shape:
    """What the network's layers depend on besides the config.

    Attributes:
        text_dim: width of the language model's vectors.
        n_codes: size of the attribute code space.
        n_numbers: numeric columns, those that say what is missing included.
        n_ids: items with an id embedding of their own.
        n_kinds: event names.
        has_time: whether the data have times.
        adapter: width of the adapter over item vectors; 0 for none.
        image_dim: width of the vision model's vectors; 0 for none.
        labelled: whether there is a label head.
    """

    text_dim: int
    n_codes: int
    n_numbers: int
    n_ids: int
    n_kinds: int
    has_time: bool
    adapter: int = 0
    image_dim: int = 0
    labelled: bool = False


class LoomNet(nn.Module):
    """The two towers: item vectors, and user vectors that are already divided by the learned temperature."""

    def __init__(self, config: ModelConfig, shape: Shape) -> None:
        super().__init__()
        self.fusion = ItemFusion(config, shape.text_dim, shape.n_codes, shape.n_numbers, shape.n_ids, shape.adapter, shape.image_dim)
        self.encoder = HistoryEncoder(config, shape.n_kinds, shape.has_time)
        self.log_scale = nn.Parameter(torch.tensor(-0.5 * float(np.log(config.dim))))
        self.label_head = LabelHead(config.dim) if shape.labelled else None

    def users(self, tokens: Tensor, batch: Packed, keep: Tensor | None = None) -> Tensor:
        """User vectors at each token; see `HistoryEncoder`."""
        return self.encoder(tokens, batch, keep) * self.log_scale.exp()


class Loom(Recommender):
    """A trained network over one catalogue, and the companions whose scores are fused with its own.

    Args:
        config: the model section of the run's config.
        shape: what the network's layers depend on.
        net: the trained network.
        content: the catalogue.
        companions: by name, over the same catalogue.
        weights: each companion's share in the fused score, together at most 1; one without a share is not asked.
        purchase: what reorders the best of them; None where validation found nothing better than the fused scores.
        labels: what makes the label head's answers true chances; None where there is no such head, or nothing to calibrate it on.
    """

    family: ClassVar[str] = "nightloom"

    def __init__(
        self,
        config: ModelConfig,
        shape: Shape,
        net: LoomNet,
        content: ItemContent,
        companions: Mapping[str, Companion],
        weights: Mapping[str, float],
        purchase: PurchaseHead | None = None,
        labels: LabelChances | None = None,
    ) -> None:
        self.config, self.shape, self.net, self.companions, self.weights = config, shape, net, companions, weights
        self.purchase, self.labels = purchase, labels
        self.content = content
        self.n_items = len(content)
        self._vectors: Tensor | None = None

    def fit(self, train: Histories, n_items: int) -> Self:
        """Rebuild companions and counters, which need no training, from newer histories of the same catalogue; the rest stays.

        The network is trained by `nightloom.training`.

        Raises:
            InputError: the catalogue has another size.
        """
        if n_items != self.n_items:
            raise InputError(
                f"the model answers {self.n_items:,} items, not {n_items:,}. Put it onto the new catalogue with Bundle.onto first."
            )
        self.companions = fit_companions(list(self.companions), train, self.content)
        if self.purchase is not None:
            self.purchase = replace(self.purchase, tallies=Tallies.of(train, n_items, KEPT_DAYS))
        if self.labels is not None:
            self.labels = replace(self.labels, counters=LabelCounters.of(train, n_items, KEPT_DAYS))
        return self

    def scores(self, histories: Histories) -> NDArray[np.float32]:
        """Final scores, float32 [len(histories), n_items]; higher is better, every item can be ranked.

        With a purchase head they are log-odds of being had, without one the fused scores.
        """
        return self.finish(self.network_scores(histories), self.companion_scores(histories), histories)

    def finish(self, network: Scores, companions: Mapping[str, Scores], histories: Histories, nameless: int | None = None) -> Scores:
        """Final scores from those of the members; `nameless` as in `PurchaseHead.rescore`."""
        fused = fuse(network, companions, self.weights)
        if self.purchase is None:
            return fused
        return self.purchase.rescore(fused, {NETWORK: network, **companions}, histories, nameless)

    def companion_scores(self, histories: Histories) -> dict[str, NDArray[np.float32]]:
        """What each companion with a share says, float32 [len(histories), n_items]."""
        return {name: self.companions[name].scores(histories) for name in self.weights}

    @torch.no_grad()
    def network_scores(self, histories: Histories) -> NDArray[np.float32]:
        """What the network alone says: logits, float32 [len(histories), n_items]."""
        items = self.item_vectors()
        users = self.user_vectors(histories, items)
        with torch.autocast(items.device.type, enabled=False):  # scores are ranked: rounded ones would be equal
            return (users.float() @ items.T).cpu().numpy()

    @torch.no_grad()
    def item_vectors(self) -> Tensor:
        """Item vectors, float32 [n_items, dim]; made once when the network can no longer change (a loaded model)."""
        if self._vectors is not None:
            return self._vectors
        with inference(self.net):
            vectors = self.net.fusion(self.content)
        if not self.net.log_scale.requires_grad:
            self._vectors = vectors
        return vectors

    @torch.no_grad()
    def user_vectors(self, histories: Histories, items: Tensor) -> Tensor:
        """User vectors, float32 [len(histories), dim], divided by the temperature.

        Args:
            histories: who asks; with `asked_at` zero their times are taken as unknown.
            items: what `item_vectors` gave.
        """
        with inference(self.net):
            return encode(self.net, items, histories, self.config.max_history)

    @torch.no_grad()
    def label_log_odds(self, histories: Histories, owner: NDArray[np.int64], items: NDArray[np.int64], counters: LabelCounters) -> Scores:
        """What the label head says before calibration, float32 [questions]: log-odds that items are positive for the histories that ask.

        Args:
            histories: who asks, and which of their events were positive.
            owner: int64 [questions], rows of `histories`.
            items: int64 [questions], dense items.
            counters: of what is known of the items.
        """
        assert self.net.label_head is not None, "the model has no label head"
        vectors = self.item_vectors()
        users, numbers = self.user_vectors(histories, vectors).float(), torch.from_numpy(counters.of_questions(histories, owner, items))
        rows, asked = torch.from_numpy(owner).to(users.device), torch.from_numpy(items).to(users.device)
        found: Scores = self.net.label_head(users[rows], vectors[asked].float(), numbers.to(users.device)).cpu().numpy()
        return found

    def chances(self, histories: Histories, owner: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float64]:
        """Calibrated chances that items would be positive, float64 [questions]; arguments as in `label_log_odds`."""
        assert self.labels is not None, "the model has no calibrated label head"
        return self.labels(self.label_log_odds(histories, owner, items, self.labels.counters))

    def save(self, folder: Path) -> None:
        """Write `loom.json`, `model.safetensors` (network and catalogue), `<name>.npz` of each companion, and both heads."""
        plain = self.config.model_dump() if hasattr(self.config, "model_dump") else vars(self.config)
        meta = {
            "family": self.family,
            "model": plain,
            "shape": asdict(self.shape),
            "weights": dict(self.weights),
            "purchase": self.purchase is not None,
            "labels": self.labels is not None,
        }
        (folder / "loom.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
        tensors = {f"net.{name}": value for name, value in self.net.state_dict().items()}
        for name in ItemContent.__dataclass_fields__:
            value = getattr(self.content, name)
            tensors[f"content.{name}"] = value.half() if name in PRETRAINED else value
        save_file({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, folder / "model.safetensors")
        for name in self.weights:
            self.companions[name].save(folder)
        for head in (self.purchase, self.labels):
            if head is not None:
                head.save(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            InputError: a file is missing or is not what `save` wrote.
        """
        try:
            meta: dict[str, Any] = json.loads((folder / "loom.json").read_text(encoding="utf-8"))
            tensors = load_file(folder / "model.safetensors")
            companions = {name: CLASSES[name].load(folder) for name in meta["weights"]}
            purchase = PurchaseHead.load(folder) if meta.get("purchase") else None
            labels = LabelChances.load(folder) if meta.get("labels") else None
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise InputError(f"{folder}: not a readable model ({error}). Name the bundle folder of a finished run.") from error
        config: Any = SimpleNamespace(**meta["model"])
        shape = Shape(**meta["shape"])
        net = LoomNet(config, shape)
        net.load_state_dict({name[4:]: value for name, value in tensors.items() if name.startswith("net.")})
        net.requires_grad_(False)
        content = _content({name.removeprefix("content."): value for name, value in tensors.items() if name.startswith("content.")})
        return cls(config, shape, net, content, companions, meta["weights"], purchase, labels)


def _content(tensors: dict[str, Tensor]) -> ItemContent:
    """A catalogue as `Loom.save` wrote it; models of before there were pictures have none."""
    n = len(tensors["id_rows"])
    without = {"image": torch.zeros(n, 0), "has_image": torch.zeros(n, dtype=torch.bool)}
    return ItemContent(**{name: value.float() if name in PRETRAINED else value for name, value in (without | tensors).items()})


def encode(net: LoomNet, items: Tensor, histories: Histories, max_history: int) -> Tensor:
    """User vector of each history, float32 [len(histories), dim]; batches hold histories of like length.

    Args:
        net: the network, in evaluation mode.
        items: float32 [n_items, dim], item vectors.
        histories: who asks.
        max_history: latest tokens that are read.
    """
    windows = Windows.to_answer(histories, max_history)
    timeless = histories.asked_at <= 0
    out = items.new_empty(len(windows), items.shape[1])
    order = np.argsort(windows.lengths, kind="stable")
    for rows in like_lengths(windows.lengths[order], ANSWER_TOKENS):
        rows = order[rows]
        some = windows.take(rows)
        batch = Packed.of(some, items.device, use_time=net.encoder.use_time, timeless=timeless[rows])
        tokens = net.encoder.tokens(items, batch.items)
        if net.label_head is not None:
            tokens = net.label_head.mark(tokens, some.vain)
        users = net.users(tokens, batch)
        out[torch.from_numpy(rows).to(items.device)] = users[batch.last]
    return out


def like_lengths(lengths: NDArray[np.int64], budget: int) -> Iterator[NDArray[np.int64]]:
    """Cut ascending lengths into runs whose padded size (count times longest) stays within a budget."""
    first = 0
    while first < len(lengths):
        last = first + 1
        while last < len(lengths) and (last + 1 - first) * lengths[last] <= budget:
            last += 1
        yield np.arange(first, last)
        first = last


@contextmanager
def inference(net: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block, the former mode after it."""
    training = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(training)
