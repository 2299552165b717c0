"""The network: item vectors and user vectors in one space."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nightloom.core.ragged import gather
from nightloom.core.sequences import Histories
from nightloom.models.heads.label_head import LabelHead
from nightloom.models.sequential.content_fusion import ItemFusion
from nightloom.models.sequential.history_encoder import HistoryEncoder, Packed
from nightloom.models.sequential.windows import Windows

if TYPE_CHECKING:
    from nightloom.config import ModelConfig

ANSWER_TOKENS = 16384
"""Padded tokens of histories that are encoded at once in inference."""


@dataclass(frozen=True)
class Shape:
    """What the network's layers depend on besides the config.

    Attributes:
        text_dim: width of the language model's vectors.
        n_codes: size of the attribute code space.
        n_numbers: numeric columns, missing-value indicators included.
        n_ids: items with an id embedding of their own.
        n_event_types: event names.
        has_time: whether the data have times.
        adapter: width of the adapter over item vectors; 0 for none.
        image_dim: width of the vision model's vectors; 0 for none.
        labelled: whether there is a label head.
    """

    text_dim: int
    n_codes: int
    n_numbers: int
    n_ids: int
    n_event_types: int
    has_time: bool
    adapter: int = 0
    image_dim: int = 0
    labelled: bool = False


class SequentialNetwork(nn.Module):
    """The two towers: item vectors, and user vectors already divided by the learned temperature."""

    def __init__(self, config: ModelConfig, shape: Shape) -> None:
        super().__init__()
        self.fusion = ItemFusion(config, shape.text_dim, shape.n_codes, shape.n_numbers, shape.n_ids, shape.adapter, shape.image_dim)
        self.encoder = HistoryEncoder(config, shape.n_event_types, shape.has_time)
        self.log_scale = nn.Parameter(torch.tensor(-0.5 * float(np.log(config.dim))))
        self.label_head = LabelHead(config.dim) if shape.labelled else None

    def users(self, tokens: Tensor, batch: Packed, keep: Tensor | None = None, at: Tensor | None = None) -> Tensor:
        """User vectors at each token, or at some; see `HistoryEncoder`."""
        return self.encoder(tokens, batch, keep, at) * self.log_scale.exp()


def encode(net: SequentialNetwork, items: Tensor, histories: Histories, max_history: int) -> Tensor:
    """User vector of each history, float32 [len(histories), dim]; batches hold histories of like length.

    Histories that are beginnings of one sequence are read in one pass over it, as long as they fit into the window.

    Args:
        net: the network, in evaluation mode.
        items: float32 [n_items, dim], item vectors.
        histories: one for each query; where `request_time` is zero, times count as unknown.
        max_history: most tokens of a history that are read, the latest ones.
    """
    timed = bool((histories.request_time > 0).all()) or not net.encoder.use_time
    if histories.prefixes is None or not timed:
        windows = Windows.to_answer(histories, max_history)
        return _at_tokens(net, items, windows, histories.request_time <= 0, np.arange(len(windows)), windows.lengths - 1)
    prefixes, out = histories.prefixes, items.new_empty(len(histories), items.shape[1])
    whole = prefixes.lengths < max_history  # one token more than events: BOS
    for rows in (np.flatnonzero(whole), np.flatnonzero(~whole)):
        if not len(rows):
            continue
        some = prefixes.take(rows)
        keys = some.users if whole[rows[0]] else np.arange(len(rows))
        # The last of each user's queries knows most: its window holds the tokens that answer the others.
        order = np.lexsort((some.stop, keys))
        last = order[np.flatnonzero(np.diff(keys[order], append=-1))]
        windows = Windows.to_answer(histories.take(rows[last]), max_history)
        window = np.searchsorted(keys[last], keys)
        token = windows.lengths[window] - 1 - (some.stop[last][window] - some.stop)
        found = _at_tokens(net, items, windows, some.request_time[last] <= 0, window, token)
        out[torch.from_numpy(rows).to(items.device)] = found
    return out


def _at_tokens(
    net: SequentialNetwork,
    items: Tensor,
    windows: Windows,
    timeless: NDArray[np.bool_],
    window: NDArray[np.int64],
    token: NDArray[np.int64],
) -> Tensor:
    """User vectors at some tokens, float32 [m, dim].

    Args:
        net: the network.
        items: float32 [n_items, dim].
        windows: what is read.
        timeless: bool [windows], windows whose times are unknown.
        window: int64 [m], the window of each answer.
        token: int64 [m], the place in it.
    """
    out = items.new_empty(len(window), items.shape[1])
    answers = np.argsort(window, kind="stable")
    answer_offsets = np.searchsorted(window[answers], np.arange(len(windows) + 1))
    order = np.argsort(windows.lengths, kind="stable")
    for rows in like_lengths(windows.lengths[order], ANSWER_TOKENS):
        rows = order[rows]
        some = windows.take(rows)
        batch = Packed.of(some, items.device, use_time=net.encoder.use_time, timeless=timeless[rows])
        tokens = net.encoder.tokens(items, batch.items)
        if net.label_head is not None:
            tokens = net.label_head.mark(tokens, some.negative)
        many = answer_offsets[rows + 1] - answer_offsets[rows]
        asked = answers[gather(answer_offsets[rows], many)]
        flat = np.repeat(some.offsets[:-1], many) + token[asked]
        out[torch.from_numpy(asked).to(items.device)] = net.users(tokens, batch, at=torch.from_numpy(flat).to(items.device))
    return out


def like_lengths(lengths: NDArray[np.int64], budget: int) -> Iterator[NDArray[np.int64]]:
    """Cut ascending lengths into runs whose padded size (count times longest) stays within the budget."""
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
