"""Windows of histories as the transformer reads them: tokens one after the other, with no padding.

A history of events e1 ... en is read as the tokens [BOS, e1, ..., en]. Token t predicts event t + 1 as of the time of that event.
The last token predicts as of the time of the request. BOS alone is an empty history.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nightloom.core.ragged import gather, offsets_of, owners, places
from nightloom.core.sequences import Histories

IntArray = NDArray[np.int64]

BOS = -1
NO_TARGET = -1


@dataclass(frozen=True)
class Windows:
    """Some windows, packed.

    Attributes:
        offsets: int64 [windows + 1]; window w has the tokens `offsets[w]:offsets[w + 1]`.
        items: int64 [tokens], dense item ids, -1 for BOS.
        event_types: int64 [tokens], codes of event names (0 for BOS).
        times: int64 [tokens], when the token's event happened, in seconds (for BOS the request time).
        request_times: int64 [tokens], as of when the next item is predicted: the time of the next event or of the request.
        targets: int64 [tokens], the next item, -1 where nothing is to be predicted.
        ids: int64 [windows], numbers that stay with a window in every batch and on every worker.
        following: int64 [tokens], place among the histories' events of the event that the token predicts, -1 where there is none.
        negative: bool [tokens], whether the token's event was not positive.
    """

    offsets: IntArray
    items: IntArray
    event_types: IntArray
    times: IntArray
    request_times: IntArray
    targets: IntArray
    ids: IntArray
    following: IntArray
    negative: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> IntArray:
        """Tokens of each window, int64 [windows]."""
        return np.diff(self.offsets)

    @property
    def n_targets(self) -> int:
        """Positions with something to predict."""
        return int((self.targets != NO_TARGET).sum())

    def take(self, rows: IntArray) -> Windows:
        """Some windows, in that order."""
        lengths = self.lengths[rows]
        flat = gather(self.offsets[rows], lengths)
        own = {name: getattr(self, name)[flat] for name in self.__dataclass_fields__ if name not in ("offsets", "ids")}
        return Windows(offsets=offsets_of(lengths), ids=self.ids[rows], **own)

    def last_earlier_token(self) -> IntArray:
        """The token from which the label of each token's next event may be predicted: the latest one strictly before it in time.

        Events of the same time, such as the films of one page, must not see each other's labels. Without times each event is later
        than the one before it.

        Returns:
            int64 [tokens], -1 where the window holds no such token.
        """
        place, start = np.arange(len(self.items)), np.repeat(self.offsets[:-1], self.lengths)
        earlier = (self.times < self.request_times) | (self.request_times <= 0) | (self.items == BOS)
        latest = np.maximum.accumulate(np.where(earlier, place, -1)) if len(place) else place
        return np.where(latest >= start, latest, -1)

    @classmethod
    def to_answer(cls, histories: Histories, max_history: int) -> Windows:
        """The latest `max_history` tokens of each history; the last token of a window predicts what to recommend."""
        n = histories.lengths + 1
        length = np.minimum(n, max_history)
        return cls._cut(histories, np.arange(len(histories)), n - length, length)

    @classmethod
    def to_train(cls, histories: Histories, max_history: int, random: np.random.Generator, *, labels: bool = False) -> Windows:
        """Cut histories so that each positive event is the target of exactly one token.

        Histories longer than a window are cut at places that move from epoch to epoch. So no event is always first in
        its window, with nothing before it.

        Args:
            histories: training histories.
            max_history: most tokens in a window.
            random: moves the cuts.
            labels: keep windows without a positive event too, since labels are learned from them.
        """
        n = histories.lengths
        shift = np.where(n > max_history, random.integers(0, max_history, len(n)), 0)
        offsets = offsets_of(-(-(n + shift) // max_history))
        owner, number = owners(offsets), places(offsets)
        start = np.maximum(number * max_history - shift[owner], 0)
        stop = np.minimum((number + 1) * max_history - shift[owner], n[owner])
        windows = cls._cut(histories, owner, start, stop - start)
        if labels:
            return windows
        useful = np.add.reduceat(windows.targets != NO_TARGET, windows.offsets[:-1]) > 0 if len(windows) else np.zeros(0, dtype=bool)
        return windows.take(np.flatnonzero(useful))

    @classmethod
    def _cut(cls, histories: Histories, owner: IntArray, start: IntArray, length: IntArray) -> Windows:
        """Windows of `length` tokens of histories `owner` from token `start`; token t is event t - 1, token 0 is BOS."""
        offsets, token = offsets_of(length), gather(start, length)
        row = np.repeat(owner, length)
        first, count = histories.offsets[:-1][row], histories.lengths[row]
        is_bos, is_last = token == 0, token == count
        if len(histories.items) == 0:
            nothing = np.zeros(len(token), dtype=np.int64)
            when = histories.request_time[row]
            negative = np.zeros(len(token), dtype=bool)
            return cls(offsets, nothing + BOS, nothing, when, when, nothing + NO_TARGET, np.arange(len(owner)), nothing - 1, negative)
        event, following = np.where(is_bos, 0, first + token - 1), np.where(is_last, 0, first + token)
        when = np.where(is_last, histories.request_time[row], histories.times[following])
        return cls(
            offsets,
            np.where(is_bos, BOS, histories.items[event]).astype(np.int64),
            np.where(is_bos, 0, histories.event_types[event]).astype(np.int64),
            np.where(is_bos, when, histories.times[event]),
            when,
            np.where(is_last | ~histories.positive[following], NO_TARGET, histories.items[following]).astype(np.int64),
            np.arange(len(owner)),
            np.where(is_last, -1, following).astype(np.int64),
            ~is_bos & ~histories.positive[event],
        )
