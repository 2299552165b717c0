"""What the label head learns from: every event of training, whether positive or not, asked about just before it happened."""

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
"""Share of the events that each label must have: with less there are no two labels to tell apart."""
FEWEST_QUESTIONS, MOST_QUESTIONS = 100, 20_000
"""Validation events that a calibration needs, and those that are asked about at most."""


class LabelTask:
    """The events of some histories as questions: will this one be positive?

    Args:
        histories: what to learn from.
        n_items: size of the catalogue.
    """

    def __init__(self, histories: Histories, n_items: int) -> None:
        self.histories = histories
        self.counters = LabelCounters.of(histories, n_items).of_events(histories)

    @classmethod
    def of(cls, net: SequentialNetwork, histories: Histories, n_items: int) -> LabelTask | None:
        """The task of a network; None where it has no label head, or the histories do not have both labels."""
        if net.label_head is None or not both_labels(histories):
            return None
        return cls(histories, n_items)

    def asked(self, windows: Windows) -> NDArray[np.int64]:
        """Tokens whose next event is asked about, int64 [n]."""
        return np.flatnonzero((windows.following >= 0) & (windows.last_earlier_token() >= 0))

    def items(self, windows: Windows) -> NDArray[np.int64]:
        """Items that are asked about, int64 [n]."""
        return self.histories.items[windows.following[self.asked(windows)]].astype(np.int64)

    def loss(self, net: SequentialNetwork, users: Tensor, vectors: Tensor, place: NDArray[np.int64], windows: Windows, seed: int) -> Tensor:
        """Binary cross-entropy of labels, summed over the events asked about: float64 [].

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
        events, heard = windows.following[asked], windows.last_earlier_token()[asked]

        def on_device(values: NDArray[Any]) -> Tensor:
            return torch.from_numpy(values).to(users.device)

        items = vectors.index_select(0, on_device(place[self.histories.items[events]])).float()
        keep = dropout_masks(windows, SITES, items.shape[1], DROPOUT, seed_of(seed, SITES), users.device)
        keep = None if keep is None else keep.index_select(1, on_device(asked))
        log_odds = net.label_head(users.index_select(0, on_device(heard)), items, on_device(self.counters[events]), keep)
        positive = on_device(self.histories.positive[events].astype(np.float32))
        return F.binary_cross_entropy_with_logits(log_odds, positive, reduction="none").sum(dtype=torch.float64)


def calibrate(recommender: SequentialRecommender, sequences: Sequences, known: Histories, seed: int) -> Line | None:
    """The line from the label head's log-odds to true ones, learnt on validation.

    None where there is nothing to learn from: no label head, or not both labels before the border or behind it. Under leave-one-out,
    where each part is cut by the labels themselves, the share of positive events in it is no truth: do not call this there.

    Args:
        recommender: network that has not learnt from the validation part.
        sequences: all events with the split's borders.
        known: the training part.
        seed: draws the events that are asked about.
    """
    if recommender.net.label_head is None or not both_labels(known):
        return None
    asked = LabelQuestions.of(sequences, "validation", MOST_QUESTIONS, seed)
    if len(asked) < FEWEST_QUESTIONS or asked.positive.all() or not asked.positive.any():
        return None
    counters = LabelCounters.of(known, recommender.n_items)
    return Line.fit(recommender.label_log_odds(asked.histories, asked.owner, asked.items, counters), asked.positive)


def both_labels(histories: Histories) -> bool:
    """Whether a share of the events that counts is positive, and another is not."""
    return len(histories.positive) > 0 and LEAST_SHARE <= float(histories.positive.mean()) <= 1 - LEAST_SHARE
