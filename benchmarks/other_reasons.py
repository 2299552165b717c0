"""Other ways to say which events of a history count, for `benchmarks.fidelity`: attention, path integration, SPIN-type, clusters.

The first three look at the network alone, as they are published for networks: attention of the last token, and gradients along a path from
a baseline to the embeddings of the events. Clusters are groups of events in the real game, scorers and all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from torch import Tensor
from torch.nn import functional

from nightloom.core.sequences import Histories
from nightloom.explain.shapley import shapley_values
from nightloom.models.sequential.attention import bias_table
from nightloom.models.sequential.history_encoder import HistoryEncoder, Packed, cast
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.models.sequential.windows import Windows
from nightloom.serving.reasons.coalitions import Coalitions

FloatArray = NDArray[np.float64]
STEPS = 20
"""Points of a path whose baseline is nothing, and of each other path."""
SPIN_BASELINES, SPIN_STEPS = 10, 6
"""Other people's events that a path may begin at: with the empty one eleven candidates, as SPINRec has them."""
CLUSTERS, CLUSTER_SAMPLES = 8, 200


class Inside:
    """One history inside the network: its tokens, and what is computed of them.

    Args:
        model: the real model.
        history: one history that fits into the window.
        copies: how many times it is laid out, so that many points of a path are one batch.
    """

    def __init__(self, model: SequentialRecommender, history: Histories, copies: int = 1) -> None:
        self.model, self.encoder = model, model.net.encoder
        many = history.take(np.zeros(copies, dtype=np.int64))
        windows = Windows.to_answer(many, model.config.max_history)
        self.events, self.copies = len(history.items), copies
        self.batch = Packed.of(windows, torch.device("cpu"), use_time=self.encoder.use_time, timeless=many.request_time <= 0)
        self.items = model.item_vectors()
        self.tokens = self.encoder.tokens(self.items, self.batch.items)
        self.last = torch.from_numpy(windows.offsets[1:] - 1)
        starts = np.repeat(windows.offsets[:-1], self.events)
        self.places = torch.from_numpy(starts + np.tile(np.arange(1, self.events + 1), copies))  # the first token is BOS

    def attention(self) -> FloatArray:
        """How much the last token looks at each event in each block, means over heads, float64 [blocks, events]."""
        encoder: HistoryEncoder = self.encoder
        found = []
        with torch.no_grad():
            x = self._input(self.tokens)
            tables = bias_table(encoder.position_bias, encoder.time_bias if encoder.use_time else None).split(encoder.heads)
            place = self.batch.place[torch.cat([self.last, self.places])]
            span = self.batch.spans[-1]
            cells = span.cells[0, int(place[0]) - span.first]
            keys = torch.cat([torch.zeros(1, dtype=torch.int64), self.places])
            for block, table in zip(encoder.blocks, tables, strict=True):
                q, k, _ = block.qkv(cast(block.attention_norm(x))).chunk(3, 1)  # type: ignore[operator]
                width = q.shape[1] // encoder.heads
                heads = []
                for head in range(encoder.heads):
                    part = slice(head * width, (head + 1) * width)
                    scores = (k[keys, part] @ q[self.last[0], part]) * width**-0.5 + table[head][cells[self.batch.place[keys]]]
                    heads.append(torch.softmax(scores, 0)[1:])
                found.append(torch.stack(heads).mean(0).double())
                x = block(x, self.batch, table, None)
        return torch.stack(found).numpy()

    def gradients(self, item: int, starts: Sequence[Tensor], shares: Sequence[FloatArray]) -> list[FloatArray]:
        """What each event adds along straight paths from baselines to the history: integrated gradients of the log-probability.

        Args:
            item: dense id.
            starts: float32 [events, dim] each, where a path begins.
            shares: points of each path, between 0 and 1; together as many as there are copies.

        Returns:
            For each path float64 [events].
        """
        whole = self.tokens[self.places[: self.events]]
        points = [start + float(share) * (whole - start) for start, own in zip(starts, shares, strict=True) for share in own]
        free = torch.stack(points).requires_grad_(True)
        x = self.tokens.detach().index_copy(0, self.places, free.reshape(-1, whole.shape[1]))
        users = self.encoder(x, self.batch, None, self.last) * self.model.net.log_scale.exp()
        worth = functional.log_softmax(users @ self.items.T, 1)[:, item].sum()
        (slope,) = torch.autograd.grad(worth, free)
        found, first = [], 0
        for start, own in zip(starts, shares, strict=True):
            mean = slope[first : first + len(own)].mean(0)
            found.append(((whole - start) * mean).sum(1).double().numpy())
            first += len(own)
        return found

    def _input(self, x: Tensor) -> Tensor:
        encoder = self.encoder
        x = x + encoder.gaps(self.batch.gap) if encoder.use_time else x
        return x + encoder.event_types(self.batch.event_types) if encoder.has_event_types else x


def paths(model: SequentialRecommender, history: Histories, item: int, others: NDArray[np.int32], seed: int) -> list[FloatArray]:
    """Path integration from nothing, then from other people's events: the candidates of a SPIN-type choice.

    Args:
        model: the real model.
        history: one history.
        item: the recommended item.
        others: int32, items of other people's events, from which baselines are drawn.
        seed: of the draws.
    """
    random, events = np.random.default_rng(seed), len(history.items)
    inside = Inside(model, history, STEPS + SPIN_BASELINES * SPIN_STEPS)
    starts = [torch.zeros(events, inside.items.shape[1])]
    starts += [inside.items[torch.from_numpy(random.choice(others, events).astype(np.int64))] for _ in range(SPIN_BASELINES)]
    shares = [(np.arange(many) + 0.5) / many for many in (STEPS, *[SPIN_STEPS] * SPIN_BASELINES)]
    return inside.gradients(item, starts, shares)


def clustered(game: Coalitions, item: int, vectors: NDArray[np.float32], seed: int) -> FloatArray:
    """Shapley values of groups of like events (Ward, by item vectors), shared out evenly within a group.

    Args:
        game: the history.
        item: the recommended item.
        vectors: float32 [events, dim], of the events' items.
        seed: of the sampling.
    """
    if game.events < 2:
        return np.ones(game.events)
    owner = fcluster(linkage(vectors.astype(np.float64), "ward"), CLUSTERS, "maxclust") - 1
    groups, many = int(owner.max()) + 1, np.bincount(owner)
    items = np.array([item])
    values = shapley_values(lambda keep: game.log_probabilities(keep[:, owner], items), groups, CLUSTER_SAMPLES, seed)[0].values
    return np.asarray(values[owner] / many[owner])


def chosen(candidates: Mapping[str, Mapping[str, float]], criterion: str = "cdcg") -> str:
    """The candidate that is best by one declared criterion, lower being better."""
    return min(candidates, key=lambda name: candidates[name][criterion])


def oracle(candidates: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The best of all candidates for each figure by itself: what no single explanation reaches, and what SPINRec's tables show."""
    some = next(iter(candidates.values()))
    return {name: (max if name.startswith("ins") else min)(one[name] for one in candidates.values()) for name in some}
