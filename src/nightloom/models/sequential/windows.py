"""Windows of histories as the transformer reads them: tokens one after the other, with no padding.

A history of events e1 ... en is read as the tokens [BOS, e1, ..., en]; token t asks for event t + 1, at the time when
that event happened or, for the last token, when the recommendation is asked for. BOS alone is an empty history.
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
        times: int64 [tokens], when the token's event happened, seconds (that of the request for BOS).
        asked: int64 [tokens], when the next event happened or is asked for.
        targets: int64 [tokens], the next item, -1 where nothing is to be predicted.
        ids: int64 [windows], numbers that stay with a window whatever batch or worker it falls to.
        following: int64 [tokens], place among the histories' events of the event that the token asks for, -1 where there is none.
        negative: bool [tokens], whether the token's event was not positive.
    """

    offsets: IntArray
    items: IntArray
    event_types: IntArray
    times: IntArray
    asked: IntArray
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
        items, event_types, times, asked, targets = (
            one[flat] for one in (self.items, self.event_types, self.times, self.asked, self.targets)
        )
        return Windows(
            offsets_of(lengths), items, event_types, times, asked, targets, self.ids[rows], self.following[flat], self.negative[flat]
        )

    def last_earlier_token(self) -> IntArray:
        """Tokens that may answer for the label of each token's next event: the latest one of strictly before it in time.

        Events of one time, such as the films of one page, know nothing of each other's labels. Without times each event is later
        than the one before it.

        Returns:
            int64 [tokens], -1 where the window holds no such token.
        """
        place, start = np.arange(len(self.items)), np.repeat(self.offsets[:-1], self.lengths)
        earlier = (self.times < self.asked) | (self.asked <= 0) | (self.items == BOS)
        latest = np.maximum.accumulate(np.where(earlier, place, -1)) if len(place) else place
        return np.where(latest >= start, latest, -1)

    @classmethod
    def to_answer(cls, histories: Histories, max_history: int) -> Windows:
        """The latest `max_history` tokens of each history; the last token of a window asks for what is to be recommended."""
        n = histories.lengths + 1
        length = np.minimum(n, max_history)
        return cls._cut(histories, np.arange(len(histories)), n - length, length)

    @classmethod
    def to_train(cls, histories: Histories, max_history: int, random: np.random.Generator, *, labels: bool = False) -> Windows:
        """Cut histories so that each positive event is the target of exactly one token.

        Histories longer than a window are cut at places that move from epoch to epoch, so that no event
        always stands at the start of a window with nothing before it.

        Args:
            histories: training histories.
            max_history: most tokens in a window.
            random: moves the cuts.
            labels: keep windows without a positive event too, since labels are learnt from them.
        """
        n = histories.lengths
        shift = np.where(n > max_history, random.integers(0, max_history, len(n)), 0)
        pieces = -(-(n + shift) // max_history)
        offsets = offsets_of(pieces)
        owner, piece = owners(offsets), places(offsets)
        start = np.maximum(piece * max_history - shift[owner], 0)
        stop = np.minimum((piece + 1) * max_history - shift[owner], n[owner])
        windows = cls._cut(histories, owner, start, stop - start)
        if labels:
            return windows
        useful = np.add.reduceat(windows.targets != NO_TARGET, windows.offsets[:-1]) > 0 if len(windows) else np.zeros(0, dtype=bool)
        return windows.take(np.flatnonzero(useful))

    @classmethod
    def _cut(cls, histories: Histories, owner: IntArray, start: IntArray, length: IntArray) -> Windows:
        """Windows of `length` tokens of histories `owner` from token `start`; token t stands for event t - 1, token 0 for BOS."""
        offsets, token = offsets_of(length), gather(start, length)
        who = np.repeat(owner, length)
        first, count = histories.offsets[:-1][who], histories.lengths[who]
        is_bos, is_last = token == 0, token == count
        if len(histories.items) == 0:
            nothing = np.zeros(len(token), dtype=np.int64)
            asked = histories.request_time[who]
            negative = np.zeros(len(token), dtype=bool)
            return cls(offsets, nothing + BOS, nothing, asked, asked, nothing + NO_TARGET, np.arange(len(owner)), nothing - 1, negative)
        event, following = np.where(is_bos, 0, first + token - 1), np.where(is_last, 0, first + token)
        asked = np.where(is_last, histories.request_time[who], histories.times[following])
        return cls(
            offsets,
            np.where(is_bos, BOS, histories.items[event]).astype(np.int64),
            np.where(is_bos, 0, histories.event_types[event]).astype(np.int64),
            np.where(is_bos, asked, histories.times[event]),
            asked,
            np.where(is_last | ~histories.positive[following], NO_TARGET, histories.items[following]).astype(np.int64),
            np.arange(len(owner)),
            np.where(is_last, -1, following).astype(np.int64),
            ~is_bos & ~histories.positive[event],
        )
