"""Held-out events as queries of the label head: given the user's history, will this event be positive?"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nightloom.core.ragged import owners
from nightloom.core.sequences import Histories, Sequences

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class LabelQuestions:
    """Queries of the label head, several of which may share a history.

    Attributes:
        histories: each user's events strictly before a time; without times, before an event.
        owner: int64 [queries], rows of `histories`, ascending.
        items: int64 [queries], dense items.
        positive: bool [queries], the labels.
    """

    histories: Histories
    owner: IntArray
    items: IntArray
    positive: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.items)

    @classmethod
    def of(cls, sequences: Sequences, part: str, most: int | None = None, seed: int = 0) -> LabelQuestions:
        """The events of a part, positive or not.

        A history holds all events before the query, held-out ones included, as in production.

        Args:
            sequences: all events with the split's cutoffs.
            part: "validation" or "test".
            most: draw at most so many events, by the seed.
            seed: of the draw.
        """
        first, stop = (
            (sequences.train_end, sequences.validation_end) if part == "validation" else (sequences.validation_end, sequences.offsets[1:])
        )
        owner = owners(sequences.offsets)
        place = np.arange(len(sequences.items))
        chosen = np.flatnonzero((place >= first[owner]) & (place < stop[owner]))
        if most is not None and len(chosen) > most:
            chosen = np.sort(np.random.default_rng(seed).choice(chosen, most, replace=False))
        # Events of one time share the history before that time.
        new = np.ones(len(place), dtype=bool)
        if sequences.has_time:
            new[1:] = (owner[1:] != owner[:-1]) | (sequences.times[1:] > sequences.times[:-1])
        cutoff = np.maximum.accumulate(np.where(new, place, 0))[chosen]
        cutoffs, row = np.unique(cutoff, return_inverse=True)
        user = owner[cutoffs]
        before = sequences.before(user, cutoffs)
        histories = replace(before, request_time=sequences.times[cutoffs])
        return cls(histories, row.astype(np.int64), sequences.items[chosen].astype(np.int64), sequences.positive[chosen])
