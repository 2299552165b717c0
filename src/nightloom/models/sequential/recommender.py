"""Family nightloom: item vectors and a history transformer in one space, whose scores are fused with those of untrained scorers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from nightloom.core.errors import InputError
from nightloom.core.moments import Moments, VectorMoments
from nightloom.core.recommender import Allowed, Recommender, Scorer, best
from nightloom.core.sequences import Histories
from nightloom.encoders.whitening import ROWS
from nightloom.models.heads.item_counters import KEPT_DAYS, ItemCounters
from nightloom.models.heads.label_counters import LabelCounters
from nightloom.models.heads.label_probabilities import LabelProbabilities
from nightloom.models.heads.reranker import Reranker
from nightloom.models.scorers.popularity_penalty import PopularityPenalty
from nightloom.models.scorers.registry import CLASSES, fit_scorers, near_texts
from nightloom.models.scorers.score_fusion import NETWORK, Scores, fuse, standard, weights_at
from nightloom.models.scorers.text_neighbours import TextNeighbours
from nightloom.models.sequential.content_fusion import ItemContent
from nightloom.models.sequential.large_catalogue import FROM_ITEMS, fused_table, members_at
from nightloom.models.sequential.network import SequentialNetwork, Shape, encode, inference

if TYPE_CHECKING:
    from nightloom.config import ModelConfig

PRETRAINED = ("text", "image")
"""Vectors of a catalogue that are stored in half precision."""
BLOCK = 1 << 14
"""Items of a large catalogue whose vectors are made at once."""
DESCRIPTION = "bundle.json"
"""What the arrays of a bundle mean. The recommender writes its sections; `nightloom.packaging.manifest` completes them."""


class SequentialRecommender(Recommender):
    """A trained network over one catalogue, and the scorers whose scores are fused with its own.

    Args:
        config: the model section of the run's config.
        shape: what the network's layers depend on.
        net: the trained network.
        content: the catalogue.
        scorers: by name, over the same catalogue.
        weights: fusion weight of each scorer for long histories, together at most 1; a scorer without one is not computed.
        newcomer_weights: those without a history; None: the same. Between the two they move smoothly.
        penalty: what is taken off popular items' final scores; None: nothing.
        reranker: reorders the best items; None where validation found nothing better than the fused scores.
        labels: calibrates the label head; None where there is no such head, or nothing to calibrate it on.
    """

    family: ClassVar[str] = "nightloom"

    def __init__(
        self,
        config: ModelConfig,
        shape: Shape,
        net: SequentialNetwork,
        content: ItemContent,
        scorers: Mapping[str, Scorer],
        weights: Mapping[str, float],
        reranker: Reranker | None = None,
        labels: LabelProbabilities | None = None,
        newcomer_weights: Mapping[str, float] | None = None,
        penalty: PopularityPenalty | None = None,
    ) -> None:
        self.config, self.shape, self.net, self.scorers, self.weights = config, shape, net, scorers, weights
        self.newcomer_weights, self.penalty = newcomer_weights, penalty
        self.reranker, self.labels = reranker, labels
        self.content = content
        self.n_items = len(content)
        self.white: ItemContent | None = None
        """The catalogue with whitened vectors, while a large one is trained on; None: they are whitened when they are needed."""
        self._near: TextNeighbours | None = None
        self._vectors: Tensor | None = None
        self._moments: tuple[Tensor, VectorMoments] | None = None

    def fit(self, train: Histories, n_items: int) -> Self:
        """Rebuild scorers and counters, which need no training, from newer histories over the same catalogue; the rest stays.

        The network is trained by `nightloom.training`.

        Raises:
            InputError: the catalogue has another size.
        """
        if n_items != self.n_items:
            raise InputError(
                f"the model ranks {self.n_items:,} items, not {n_items:,}. Move it to the new catalogue with Bundle.reindex first."
            )
        support = getattr(self.config, "min_support", 1)  # models of before
        names, reads_text = list(self.scorers), self.net.fusion.use_text
        if self._near is None and reads_text:
            self._near = near_texts(names, self.content)
        self.scorers = fit_scorers(names, train, self.content, support, reads_text=reads_text, near=self._near)
        if self.reranker is not None:
            days = self.reranker.item_counters.kept_days  # leave-one-out asks at any time, and keeps all
            self.reranker = replace(self.reranker, item_counters=ItemCounters.of(train, n_items, days))
        if self.labels is not None:
            self.labels = replace(self.labels, counters=LabelCounters.of(train, n_items, KEPT_DAYS))
        return self

    def scores(self, histories: Histories) -> NDArray[np.float32]:
        """Final scores, float32 [len(histories), n_items]; higher is better, every item can be ranked.

        With a re-ranker they are log-odds of an interaction, without one the fused scores; less the popularity penalty where there is one.
        """
        return self._scores(histories)

    def _scores(self, histories: Histories, allowed: Allowed | None = None) -> NDArray[np.float32]:
        """As `scores`; `allowed` as in `Reranker.rescore`."""
        if self.n_items <= FROM_ITEMS:
            return self.finish(self.network_scores(histories), self.scorer_scores(histories), histories, allowed=allowed)
        scorers = {name: self.scorers[name] for name in self.weights}
        found = fused_table(self, histories)
        if self.reranker is not None:
            found = self.reranker.rescore(found, lambda items: members_at(self, histories, items, scorers), histories, allowed=allowed)
        return found if self.penalty is None else self.penalty.taken_off(found)

    def recommend(
        self, histories: Histories, k: int, *, exclude_seen: bool = True, allowed: Allowed | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """As `Recommender.recommend`; the re-ranker's candidates are the best of the allowed items."""
        scores = self._scores(histories, allowed)
        return best(scores, histories, k, exclude_seen=exclude_seen, allowed=allowed)

    def candidate_scores(self, histories: Histories, candidates: NDArray[np.int64]) -> Scores:
        """Final scores of some items only, without scoring the rest of the catalogue.

        They are those of `scores`, except that the re-ranker looks for its best items among the candidates alone.

        Args:
            histories: n queries.
            candidates: int64 [n, k], dense items, distinct within a row; in ascending order ties fall as in the full table.

        Returns:
            float32 [n, k].
        """
        members = {NETWORK: self.network_candidates(histories, candidates)}
        members |= {name: self.scorers[name].candidate_scores(histories, candidates) for name in self.weights}
        standardised = {name: moments.standardise(scores) for name, (scores, moments) in members.items()}
        return self._final(standardised, histories, items=candidates)

    def finish(
        self,
        network: Scores,
        scorers: Mapping[str, Scores],
        histories: Histories,
        ablated: int | None = None,
        allowed: Allowed | None = None,
    ) -> Scores:
        """Final scores from the full tables of the members; `ablated` and `allowed` as in `Reranker.rescore`."""
        members = {NETWORK: standard(network)} | {name: standard(scorers[name]) for name in self.weights}
        return self._final(members, histories, ablated, allowed)

    def _final(
        self,
        members: Mapping[str, Scores],
        histories: Histories,
        ablated: int | None = None,
        allowed: Allowed | None = None,
        items: NDArray[np.int64] | None = None,
    ) -> Scores:
        """Final scores from the members' standardised ones; arguments as in `Reranker.rescore`."""
        found = fuse(members, self.weights_at(histories.lengths))
        if self.reranker is not None:
            found = self.reranker.rescore(found, members, histories, ablated, allowed, items)
        if self.penalty is None:
            return found
        return (self.penalty if ablated is None else self.penalty.without(ablated)).taken_off(found, items)

    @property
    def fused_unit(self) -> float:
        """How much a unit of the fused score is in final scores: 1, or log-odds where a re-ranker answers."""
        return 1.0 if self.reranker is None else self.reranker.fallback.slope

    def reranker_features(self, histories: Histories) -> NDArray[np.float32] | None:
        """What the re-ranker reads of its candidates, float32 [n, candidates, columns]; None without one."""
        if self.reranker is None:
            return None
        members = {NETWORK: standard(self.network_scores(histories))}
        members |= {name: standard(scores) for name, scores in self.scorer_scores(histories).items()}
        return self.reranker.candidates(fuse(members, self.weights_at(histories.lengths)), members, histories)[1]

    def weights_at(self, lengths: NDArray[np.integer]) -> dict[str, NDArray[np.float32]]:
        """Fusion weights of the scorers for histories of some lengths, int [n]: scorer -> float32 [n]."""
        return weights_at(self.weights, self.weights if self.newcomer_weights is None else self.newcomer_weights, lengths)

    def scorer_scores(self, histories: Histories) -> dict[str, NDArray[np.float32]]:
        """Scores of each scorer with a fusion weight, float32 [len(histories), n_items]."""
        return {name: self.scorers[name].scores(histories) for name in self.weights}

    @torch.no_grad()
    def network_scores(self, histories: Histories) -> NDArray[np.float32]:
        """Scores of the network alone: logits, float32 [len(histories), n_items]."""
        items = self.item_vectors()
        users = self.user_vectors(histories, items)
        with torch.autocast(items.device.type, enabled=False):  # scores are ranked: rounded ones would be equal
            return (users.float() @ items.T).cpu().numpy()

    @torch.no_grad()
    def network_candidates(self, histories: Histories, candidates: NDArray[np.int64]) -> tuple[Scores, Moments]:
        """As `Scorer.candidate_scores`, of the network alone."""
        items = self.item_vectors()
        users = self.user_vectors(histories, items).float()
        chosen = items[torch.from_numpy(candidates).to(items.device)]
        with torch.autocast(items.device.type, enabled=False):
            scores = torch.einsum("nd,nkd->nk", users, chosen).cpu().numpy()
        return scores, self.vector_moments(items)(users.cpu().numpy())

    def vector_moments(self, items: Tensor) -> VectorMoments:
        """Moments of the catalogue's vectors; kept as long as those are."""
        if self._moments is None or self._moments[0] is not items:
            self._moments = (items, VectorMoments(items.float().cpu().numpy()))
        return self._moments[1]

    @torch.no_grad()
    def item_vectors(self) -> Tensor:
        """Item vectors, float32 [n_items, dim]; made once when the network can no longer change (a loaded model)."""
        if self._vectors is not None:
            return self._vectors
        with inference(self.net):
            if len(self.content) <= ROWS:
                vectors = self.net.fusion(self.content)
            else:
                content, white = self.white or self.content, self.white is not None
                vectors = self.net.log_scale.new_empty(len(content), self.config.dim)
                for rows in torch.arange(len(content)).to(content.id_rows.device).split(BLOCK):
                    vectors[rows] = self.net.fusion(content.take(rows), white=white).to(vectors.dtype)
        if not self.net.log_scale.requires_grad:
            self._vectors = vectors
        return vectors

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """The network does not change while the block lasts, so item vectors are made once."""
        before, self._vectors = self._vectors, self.item_vectors()
        try:
            yield
        finally:
            self._vectors = before

    def with_network(self, net: SequentialNetwork, vectors: Tensor) -> SequentialRecommender:
        """The same model with another network of the same shape, which can not change, and item vectors that are given, not made."""
        rest = (self.content, self.scorers, self.weights, self.reranker, self.labels, self.newcomer_weights, self.penalty)
        other = SequentialRecommender(self.config, self.shape, net, *rest)
        other._vectors = vectors
        return other

    @torch.no_grad()
    def user_vectors(self, histories: Histories, items: Tensor) -> Tensor:
        """User vectors, float32 [len(histories), dim], divided by the temperature.

        Args:
            histories: one for each query; where `request_time` is zero, times count as unknown.
            items: what `item_vectors` gave.
        """
        with inference(self.net):
            return encode(self.net, items, histories, self.config.max_history)

    @torch.no_grad()
    def label_log_odds(self, histories: Histories, owner: NDArray[np.int64], items: NDArray[np.int64], counters: LabelCounters) -> Scores:
        """Uncalibrated answers of the label head, float32 [pairs]: log-odds that an item is positive for a history.

        Args:
            histories: one for each query; which of their events were positive counts too.
            owner: int64 [pairs], rows of `histories`.
            items: int64 [pairs], dense items.
            counters: of the events that are known.
        """
        if self.net.label_head is None:
            raise ValueError("the model has no label head: train it with training.label_weight")
        vectors = self.item_vectors()
        users, numbers = self.user_vectors(histories, vectors).float(), torch.from_numpy(counters.of_pairs(histories, owner, items))
        rows, dense = torch.from_numpy(owner).to(users.device), torch.from_numpy(items).to(users.device)
        found: Scores = self.net.label_head(users[rows], vectors[dense].float(), numbers.to(users.device)).cpu().numpy()
        return found

    def probabilities(self, histories: Histories, owner: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float64]:
        """Calibrated probabilities that items would be positive, float64 [pairs]; arguments as in `label_log_odds`."""
        if self.labels is None:
            raise ValueError("the model has no calibrated label head: train it with training.label_weight and one cut for all users")
        return self.labels(self.label_log_odds(histories, owner, items, self.labels.counters))

    def save(self, folder: Path) -> None:
        """Write `model.safetensors` (network, catalogue), `<name>.npz` of each scorer, both heads, and its sections of `bundle.json`."""
        plain = self.config.model_dump() if hasattr(self.config, "model_dump") else vars(self.config)
        meta = {
            "family": self.family,
            "model": plain,
            "shape": asdict(self.shape),
            "weights": dict(self.weights),
            "newcomer_weights": self.newcomer_weights and dict(self.newcomer_weights),
            "heads": {"reranker": self.reranker is not None, "labels": self.labels is not None},
        }
        (folder / DESCRIPTION).write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
        tensors = {f"net.{name}": value.detach().cpu().contiguous().clone() for name, value in self.net.state_dict().items()}
        for name in ItemContent.__dataclass_fields__:
            value = getattr(self.content, name).detach().cpu().contiguous()
            tensors[f"content.{name}"] = value.half() if name in PRETRAINED else value.clone()
        save_file(tensors, folder / "model.safetensors")
        for name in self.weights:
            self.scorers[name].save(folder)
        for part in (self.reranker, self.labels, self.penalty):
            if part is not None:
                part.save(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            InputError: a file is missing or is not what `save` wrote.
        """
        try:
            meta: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
            tensors = load_file(folder / "model.safetensors")
            scorers = {name: CLASSES[name].load(folder) for name in meta["weights"]}
            reranker = Reranker.load(folder) if meta["heads"]["reranker"] else None
            labels = LabelProbabilities.load(folder) if meta["heads"]["labels"] else None
            penalty = PopularityPenalty.load(folder)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise InputError(f"{folder}: not a readable model ({error}). Name the bundle folder of a finished run.") from error
        config: Any = SimpleNamespace(**meta["model"])
        shape = Shape(**meta["shape"])
        net = SequentialNetwork(config, shape)
        net.load_state_dict({name[4:]: value for name, value in tensors.items() if name.startswith("net.")})
        net.requires_grad_(False)
        content = _content({name.removeprefix("content."): value for name, value in tensors.items() if name.startswith("content.")})
        return cls(config, shape, net, content, scorers, meta["weights"], reranker, labels, meta.get("newcomer_weights"), penalty)


def _content(tensors: dict[str, Tensor]) -> ItemContent:
    """A catalogue as `SequentialRecommender.save` wrote it; models from before Nightloom read pictures have none."""
    n = len(tensors["id_rows"])
    without = {"image": torch.zeros(n, 0), "has_image": torch.zeros(n, dtype=torch.bool)}
    return ItemContent(**{name: value.float() if name in PRETRAINED else value for name, value in (without | tensors).items()})
