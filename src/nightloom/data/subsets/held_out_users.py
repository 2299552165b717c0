"""Users held out of a search: they choose its epoch and its fusion weights.

Where a model learns from a part of the users, most later queries come from users that it does not know. The next events of the few training
users are soon memorised, so they would choose an epoch that is bad for all others. Some users are therefore held out of the search, with a
query before each of their events. Once the epoch is chosen, all of them are learned from.

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
"""Share of the users that are held out of the search."""
LATEST = 40
"""Latest events of each held-out user that become queries: real queries come late, and often with long histories."""


@dataclass(frozen=True)
class Search:
    """Users that a search learns from, and users that choose its epoch.

    Attributes:
        learned: the others; the search learns from their training parts.
        held_out: the held-out users, whose validation parts become queries; see `questions`.
    """

    learned: Sequences
    held_out: Sequences

    @classmethod
    def of(cls, sequences: Sequences, seed: int, *, alone: bool) -> Search:
        """Hold out a share of the users (`HELD_OUT`, at least one), drawn by the seed.

        Args:
            sequences: of at least two users.
            seed: of the draw.
            alone: whether each user has cut-offs of an own (leave-one-out). Then all events before the test but the first become queries.
                Else only those of the validation part do, since earlier ones lie before the others' training events.
        """
        order = np.random.default_rng(seed).permutation(sequences.n_users).astype(np.int64)
        many = max(1, round(HELD_OUT * sequences.n_users))
        held = sequences.of_users(np.sort(order[:many]))
        if alone:
            held = replace(held, train_end=np.minimum(held.offsets[:-1] + 1, held.validation_end))
        return cls(sequences.of_users(np.sort(order[many:])), held)

    def save(self, folder: Path, protocol: str) -> None:
        """Write `search_<protocol>.npz` and `held_out_<protocol>.npz`."""
        self.learned.save(folder / f"search_{protocol}.npz")
        self.held_out.save(folder / f"held_out_{protocol}.npz")

    @classmethod
    def load(cls, folder: Path, protocol: str) -> Search | None:
        """Read what `save` wrote; None where nobody is held out."""
        places = [folder / f"{name}_{protocol}.npz" for name in ("search", "held_out")]
        return cls(*map(Sequences.load, places)) if places[0].is_file() else None

    def questions(self, *, exclude_seen: bool) -> Queries:
        """One query for each of the latest positive events in the held-out users' validation parts, with the whole history before it.

        Friends' histories are left out: they end where the user's validation part begins.

        Args:
            exclude_seen: leave out events on items that the history has seen (they would never be shown).
        """
        held = self.held_out
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
        events = np.flatnonzero(wanted)
        histories = replace(held.before(owner[events], events), request_time=held.times[events])
        return Queries(owner[events], histories, np.arange(len(events) + 1, dtype=np.int64), held.items[events])
