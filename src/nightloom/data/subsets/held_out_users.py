"""People held out of a search: its epoch and its shares are chosen by asking those whom it has not learned from.

Where a model learns from a part of the users, most of those who will ask it are new to it. What the few who are learned from would have
next is soon answered by heart, so their held-out events end a search long before it is good for the others. Some of the few are held out
of the search instead, and asked before each of their events; once the epoch is chosen, all of them are learned from.

Needs numpy alone, since training workers on bare machines read these.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nightloom.core.ragged import owners
from nightloom.core.sequences import Queries, Sequences

IntArray = NDArray[np.int64]

HELD_OUT = 0.2
"""Share of the users who are asked, and not learned from while the epoch is looked for."""
LATEST = 40
"""Events of each that are asked about, the latest: the others will ask with what they have by now, and many have long histories."""


@dataclass(frozen=True)
class Search:
    """Who is learned from until the epoch is chosen, and who is asked meanwhile.

    Attributes:
        learned: histories of the others; their training parts are learned from.
        asked: those held out, who are asked about their validation parts; see `questions`.
    """

    learned: Sequences
    asked: Sequences

    @classmethod
    def of(cls, sequences: Sequences, seed: int, *, alone: bool) -> Search:
        """Hold out a share of the users (`HELD_OUT`, at least one), drawn by the seed.

        Args:
            sequences: of at least two users.
            seed: of the draw.
            alone: whether each user has cutoffs of an own (leave-one-out): then all events until the test but the first are asked
                about, else those of the validation part, since only these lie behind what the others are learned from.
        """
        order = np.random.default_rng(seed).permutation(sequences.n_users).astype(np.int64)
        many = max(1, round(HELD_OUT * sequences.n_users))
        held = sequences.of_users(np.sort(order[:many]))
        if alone:
            held = replace(held, train_end=np.minimum(held.offsets[:-1] + 1, held.validation_end))
        return cls(sequences.of_users(np.sort(order[many:])), held)

    def save(self, folder: Path, protocol: str) -> None:
        """Write `search_<protocol>.npz` and `asked_<protocol>.npz`."""
        self.learned.save(folder / f"search_{protocol}.npz")
        self.asked.save(folder / f"asked_{protocol}.npz")

    @classmethod
    def load(cls, folder: Path, protocol: str) -> Search | None:
        """Read what `save` wrote; None where nobody is held out."""
        places = [folder / f"{name}_{protocol}.npz" for name in ("search", "asked")]
        return cls(*map(Sequences.load, places)) if places[0].is_file() else None

    def questions(self, *, exclude_seen: bool) -> Queries:
        """One query for each of the latest positive events in the validation part of those held out, with all that its user had before it.

        Nothing is heard of friends: their histories end where the asker's validation part begins.

        Args:
            exclude_seen: leave out events on items that the history has seen (they would never be shown).
        """
        held = self.asked
        owner = owners(held.offsets)
        place = np.arange(len(held.items))
        wanted = held.positive & (place >= held.train_end[owner]) & (place < held.validation_end[owner])
        if exclude_seen:
            pair = np.unique(owner * np.int64(held.n_items) + held.items, return_inverse=True)[1]
            first = np.full(pair.max(initial=-1) + 1, len(place))
            np.minimum.at(first, pair[held.seen], place[held.seen])
            wanted &= place <= first[pair]
        through = np.cumsum(wanted)
        wanted &= through > through[held.validation_end[owner] - 1] - LATEST
        asked = np.flatnonzero(wanted)
        histories = replace(held.before(owner[asked], asked), request_time=held.times[asked])
        return Queries(owner[asked], histories, np.arange(len(asked) + 1, dtype=np.int64), held.items[asked])
