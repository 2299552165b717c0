"""Held-out events as questions for the label head: given what its user had done before, will this event be positive?"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nightloom.core.ragged import owners
from nightloom.core.sequences import Histories, Sequences

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class LabelQuestions:
    """Questions, several of which may share a history.

    Attributes:
        histories: what each user had done strictly before a time; without times, before an event.
        owner: int64 [questions], rows of `histories`, ascending.
        items: int64 [questions], dense items.
        positive: bool [questions], the answers.
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

        A history holds what came before the event itself, held-out events included: it is what a user brings along when the next
        page is made.

        Args:
            sequences: all events with the split's cutoffs.
            part: "validation" or "test".
            most: ask about so many events at most, drawn by the seed.
            seed: of the draw.
        """
        first, stop = (
            (sequences.train_end, sequences.validation_end) if part == "validation" else (sequences.validation_end, sequences.offsets[1:])
        )
        owner = owners(sequences.offsets)
        place = np.arange(len(sequences.items))
        asked = np.flatnonzero((place >= first[owner]) & (place < stop[owner]))
        if most is not None and len(asked) > most:
            asked = np.sort(np.random.default_rng(seed).choice(asked, most, replace=False))
        # An event of the same time as the one before it begins no new history.
        new = np.ones(len(place), dtype=bool)
        if sequences.has_time:
            new[1:] = (owner[1:] != owner[:-1]) | (sequences.times[1:] > sequences.times[:-1])
        cutoff = np.maximum.accumulate(np.where(new, place, 0))[asked]
        cutoffs, row = np.unique(cutoff, return_inverse=True)
        user = owner[cutoffs]
        before = sequences.before(user, cutoffs)
        histories = replace(before, request_time=sequences.times[cutoffs])
        return cls(histories, row.astype(np.int64), sequences.items[asked].astype(np.int64), sequences.positive[asked])
