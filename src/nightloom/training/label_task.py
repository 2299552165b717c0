"""Training targets of the label head: the label of every training event, predicted just before it happened."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nightloom.core.calibration import Line
from nightloom.core.sequences import Histories, Sequences
from nightloom.data.preparation.label_questions import LabelQuestions
from nightloom.models.heads.label_counters import LabelCounters
from nightloom.models.heads.label_head import DROPOUT, SITES
from nightloom.models.sequential.batches import dropout_masks, seed_of
from nightloom.models.sequential.network import SequentialNetwork
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.models.sequential.windows import Windows

LEAST_SHARE = 0.01
"""Share of the events that each label must have; with less there is nothing to learn."""
FEWEST_QUESTIONS, MOST_QUESTIONS = 100, 20_000
"""Validation events that a calibration needs at least, and uses at most."""


class LabelTask:
    """The events of some histories as binary targets: positive or not.

    Args:
        histories: what to learn from.
        n_items: size of the catalogue.
        run_seed: the run's `training.seed`.
    """

    def __init__(self, histories: Histories, n_items: int, run_seed: int) -> None:
        self.histories, self.run_seed = histories, run_seed
        self.counters = LabelCounters.of(histories, n_items).of_events(histories)

    @classmethod
    def of(cls, net: SequentialNetwork, histories: Histories, n_items: int, run_seed: int) -> LabelTask | None:
        """The task of a network; None where it has no label head, or the histories do not have both labels."""
        if net.label_head is None or not both_labels(histories):
            return None
        return cls(histories, n_items, run_seed)

    def asked(self, windows: Windows) -> NDArray[np.int64]:
        """Tokens whose next event is a target, int64 [n]."""
        return np.flatnonzero((windows.following >= 0) & (windows.last_earlier_token() >= 0))

    def items(self, windows: Windows) -> NDArray[np.int64]:
        """Items of those events, int64 [n]."""
        return self.histories.items[windows.following[self.asked(windows)]].astype(np.int64)

    def loss(self, net: SequentialNetwork, users: Tensor, vectors: Tensor, place: NDArray[np.int64], windows: Windows, seed: int) -> Tensor:
        """Binary cross-entropy of labels, summed over the events: float64 [].

        Args:
            net: with a label head.
            users: float32 [tokens, dim].
            vectors: float [items, dim], of some items.
            place: int64 [catalogue], where each of those stands in `vectors`.
            windows: the tokens.
            seed: of the step.
        """
        if net.label_head is None:
            raise ValueError("the network has no label head")
        asked = self.asked(windows)
        events, earlier = windows.following[asked], windows.last_earlier_token()[asked]

        def on_device(values: NDArray[Any]) -> Tensor:
            return torch.from_numpy(values).to(users.device)

        items = vectors.index_select(0, on_device(place[self.histories.items[events]])).float()
        keep = dropout_masks(windows, SITES, items.shape[1], DROPOUT, seed_of(seed, SITES), users.device, run_seed=self.run_seed)
        keep = None if keep is None else keep.index_select(1, on_device(asked))
        log_odds = net.label_head(users.index_select(0, on_device(earlier)), items, on_device(self.counters[events]), keep)
        positive = on_device(self.histories.positive[events].astype(np.float32))
        return F.binary_cross_entropy_with_logits(log_odds, positive, reduction="none").sum(dtype=torch.float64)


def calibrate(recommender: SequentialRecommender, sequences: Sequences, known: Histories, seed: int) -> Line | None:
    """Platt scaling of the label head, fitted on validation.

    None without a label head, or without both labels before and after the cut-off. Leave-one-out cuts its parts by the labels,
    so their rates are no truth: do not call this there.

    Args:
        recommender: its network was not trained on the validation part.
        sequences: all events with the split's cut-offs.
        known: the training part.
        seed: draws the events that are used.
    """
    if recommender.net.label_head is None or not both_labels(known):
        return None
    asked = LabelQuestions.of(sequences, "validation", MOST_QUESTIONS, seed)
    if len(asked) < FEWEST_QUESTIONS or asked.positive.all() or not asked.positive.any():
        return None
    counters = LabelCounters.of(known, recommender.n_items)
    return Line.fit(recommender.label_log_odds(asked.histories, asked.owner, asked.items, counters), asked.positive)


def both_labels(histories: Histories) -> bool:
    """Whether both labels have at least `LEAST_SHARE` of the events."""
    return len(histories.positive) > 0 and LEAST_SHARE <= float(histories.positive.mean()) <= 1 - LEAST_SHARE
