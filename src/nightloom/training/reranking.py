"""Fitting the re-ranker on validation: whether it is kept, for how many epochs it is trained, and how its log-odds are calibrated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from nightloom.core.calibration import Line
from nightloom.core.ranking import blocks, held_out_mask, ndcg_of_scores
from nightloom.core.sequences import Queries
from nightloom.core.threads import each
from nightloom.models.heads.item_counters import ItemCounters
from nightloom.models.heads.net import HeadNet
from nightloom.models.heads.reranker import Numbers, Reranker, answers, candidates_of, describe
from nightloom.models.scorers.score_fusion import NETWORK, fuse, standard
from nightloom.models.sequential.large_catalogue import FROM_ITEMS, fused_table, large_blocks, members_at
from nightloom.models.sequential.recommender import SequentialRecommender

EPOCHS = 8
FOLDS = 3
FEWEST_QUERIES = 100
LOOKS = (4_000, 10_000)
"""Queries that it is judged by, where there are as many: more only where the first show a gain that may be chance."""
LEAST_GAIN = 2.0
"""Standard errors by which the head must raise NDCG@10 of queries that it was not trained on."""
NETS, WIDTH, DROPOUT = 2, 32, 0.3
RATE, DECAY, BATCH = 2e-3, 0.05, 32

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class RerankerChoice:
    """The outcome. All figures are out-of-fold: of validation queries that the head was not trained on.

    Attributes:
        head: the fitted head; None where its gain is not above `LEAST_GAIN` standard errors.
        gain: by how much it raises NDCG@10.
        error: standard error of the gain.
        queries: how many it was judged by.
    """

    head: Reranker | None = None
    gain: float = 0.0
    error: float = 0.0
    queries: int = 0


def choose_reranker(
    recommender: SequentialRecommender, queries: Queries, item_counters: ItemCounters, *, exclude_seen: bool, seed: int
) -> RerankerChoice:
    """Fit a head on the best candidates of the fused scores, and keep it where it orders them significantly better.

    Args:
        recommender: network, scorers and fusion weights, all fitted without the validation part.
        queries: validation queries.
        item_counters: counters of the events before them.
        exclude_seen: whether items of a history are no candidates.
        seed: of everything random.
    """
    found = RerankerChoice()
    for most in LOOKS:
        if found.queries == len(queries) or len(queries) < FEWEST_QUERIES:
            break
        found = _judged(recommender, queries, item_counters, most, exclude_seen=exclude_seen, seed=seed)
        if found.head is not None or found.gain <= 0:
            break
    return found


def _judged(
    recommender: SequentialRecommender, queries: Queries, item_counters: ItemCounters, most: int, *, exclude_seen: bool, seed: int
) -> RerankerChoice:
    """The choice by at most so many of the queries."""
    random = np.random.default_rng(seed)
    queries = queries.take(random.choice(len(queries), min(len(queries), most), replace=False))
    described, fused, held = candidate_rows(recommender, queries, item_counters, exclude_seen=exclude_seen)
    many = np.diff(queries.target_offsets)
    if not held.any():
        return RerankerChoice()
    fold = random.permutation(np.arange(len(queries)) % FOLDS)
    out_of_fold = np.zeros((EPOCHS, *held.shape), dtype=np.float32)
    for one in range(FOLDS):
        inside, outside, done = np.flatnonzero(fold != one), np.flatnonzero(fold == one), np.flatnonzero(fold <= one)
        numbers = Numbers.fit(described[inside].reshape(-1, described.shape[2]))
        for epoch, net in enumerate(train(described[inside], held[inside], numbers, EPOCHS, seed)):
            out_of_fold[epoch, outside] = answers(net, numbers, described[outside])
        best = int(np.argmin([log_loss(scores[done], held[done]) for scores in out_of_fold]))
        reranked = ndcg_of_scores(out_of_fold[best, done], held[done], many[done], model="re-ranker")
        gain = reranked - ndcg_of_scores(fused[done], held[done], many[done], model="fused scores")
        found = RerankerChoice(None, float(gain.mean()), float(gain.std() / len(gain) ** 0.5), len(gain))
        if found.gain <= 0:  # it will hardly become significant any more, and most data sets end here
            return found
    if found.gain <= LEAST_GAIN * found.error:
        return found
    numbers = Numbers.fit(described.reshape(-1, described.shape[2]))
    *_, net = train(described, held, numbers, best + 1, seed)
    net.requires_grad_(False)
    calibration, fallback = Line.fit(out_of_fold[best].ravel(), held.ravel()), Line.fit(fused.ravel(), held.ravel())
    members = (NETWORK, *recommender.weights)
    return replace(found, head=Reranker(net, numbers, calibration, fallback, members, exclude_seen, item_counters))


def candidate_rows(
    recommender: SequentialRecommender, queries: Queries, item_counters: ItemCounters, *, exclude_seen: bool
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """The candidates of each query as the head reads them.

    Returns:
        Inputs as `describe` gives them, float32 [n, candidates, columns]; fused scores, float32 [n, candidates]; whether each
        candidate is held out, bool [n, candidates].
    """
    parts: list[tuple[FloatArray, FloatArray, BoolArray]] = []
    if recommender.n_items > FROM_ITEMS:
        some = large_blocks(recommender, queries)
        parts = list(each(lambda rows: _large_rows(recommender, queries.take(rows), item_counters, exclude_seen), some))
        described, fused, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return described, fused, labels
    for part in blocks(queries, recommender.n_items * (len(recommender.weights) + 1)):
        histories = part.histories.packed()
        tables = {NETWORK: recommender.network_scores(histories), **recommender.scorer_scores(histories)}
        members = {name: standard(scores) for name, scores in tables.items()}
        fused = fuse(members, recommender.weights_at(histories.lengths))
        candidates = candidates_of(fused, histories, exclude_seen=exclude_seen)
        held = held_out_mask(part, fused.shape[1])
        scores = [np.take_along_axis(table, candidates, 1) for table in (fused, *members.values())]
        described = describe(scores, candidates, histories, item_counters)
        parts.append((described, scores[0], np.take_along_axis(held, candidates, 1)))
    described, fused, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return described, fused, labels


def _large_rows(
    recommender: SequentialRecommender, part: Queries, item_counters: ItemCounters, exclude_seen: bool
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """As `candidate_rows`, of a large catalogue."""
    histories, scorers = part.histories.packed(), {name: recommender.scorers[name] for name in recommender.weights}
    fused = fused_table(recommender, histories)
    candidates = candidates_of(fused, histories, exclude_seen=exclude_seen)
    best = np.take_along_axis(fused, candidates, 1)
    described = describe([best, *members_at(recommender, histories, candidates, scorers).values()], candidates, histories, item_counters)
    return described, best, np.take_along_axis(held_out_mask(part, recommender.n_items), candidates, 1)


def train(described: FloatArray, held: BoolArray, numbers: Numbers, epochs: int, seed: int) -> Iterator[HeadNet]:
    """An ensemble of networks, each with its own order of the queries; yielded in evaluation mode after every epoch.

    Args:
        described: float32 [n, candidates, columns].
        held: bool [n, candidates], the labels.
        numbers: how inputs are made.
        epochs: how many.
        seed: of everything random.
    """
    n, k = held.shape
    inputs, labels = numbers(described.reshape(n * k, -1)).reshape(n, k, -1), torch.from_numpy(held.astype(np.float32))
    rate = float(np.clip(held.mean(), 1e-4, 1 - 1e-4))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = HeadNet(NETS, 0, numbers.width, WIDTH, DROPOUT, float(np.log(rate / (1 - rate))))
        optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY, foreach=True)
        for _ in range(epochs):
            net.train()
            for rows in torch.stack([torch.randperm(n) for _ in range(NETS)]).split(BATCH, dim=1):
                x = inputs[rows].flatten(1, 2)
                answers = net(torch.zeros(NETS, x.shape[1], 0, dtype=torch.int64), x)
                loss = functional.binary_cross_entropy_with_logits(answers, labels[rows].flatten(1), reduction="none").mean(1).sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            yield net.eval()


def log_loss(log_odds: FloatArray, held: BoolArray) -> float:
    """Mean of minus the log of the probability given to what happened, in nats."""
    return float(np.logaddexp(0, np.where(held, -log_odds, log_odds)).mean())
