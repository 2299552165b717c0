"""Co-occurrence and `linear` fitted anew by day, on the snapshot's events and those of the store, in a process of its own.

One event of a long history changes hundreds of pairs, and the night keeps the strongest pairs alone: so events are not counted one by
one. `nightloom.serving.rebuilder` has this run while the service answers, and workers take the edges from a file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from nightloom.core.errors import InputError, NightloomError
from nightloom.core.files import whole_file
from nightloom.core.ragged import offsets_of
from nightloom.core.sequences import Histories
from nightloom.models.scorers.cooccurrence import Cooccurrence
from nightloom.models.scorers.linear import Linear
from nightloom.serving.model.artefact import Artefact
from nightloom.serving.settings import CHAMPION, LEAST_TOLD, Champion
from nightloom.serving.store import Event, Forgotten, Item
from nightloom.serving.store.view import View
from nightloom.serving.stored import Rules

MOST_EVENTS = 20_000_000
"""Events that are held in memory, some 50 bytes each; of more the night alone makes edges."""
LONGEST_HISTORY = 100_000
"""Events of a user that are read."""
REFITTED = (Cooccurrence, Linear)
NOTHING = -1
"""What is said where the model has none of these, or its snapshot is not here: the day's events alone know less than the night did."""
EDGES = ("offsets", "targets", "weights", "popularity")
"""Arrays of `nightloom.models.scorers.item_graph.ItemGraph`."""


@dataclass(frozen=True)
class Rebuilt:
    """Edges over the catalogue that training knew, and behind it the items that came by day.

    Attributes:
        arrays: scorer -> those of `EDGES`.
        fresh: ids of the items that came by day, in the order of their numbers.
    """

    arrays: Mapping[str, Mapping[str, NDArray[Any]]]
    fresh: list[str]

    def write(self, path: Path) -> None:
        """Write them, whole or not at all."""
        everything: dict[str, Any] = {f"{scorer}.{name}": one for scorer, arrays in self.arrays.items() for name, one in arrays.items()}
        everything["fresh"] = np.array(self.fresh, dtype=np.str_)
        with whole_file(path) as partial, partial.open("wb") as out:
            np.savez(out, **everything)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote.

        Raises:
            OSError, ValueError: there is none, or it is damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as found:
                scorers = {name.partition(".")[0] for name in found} - {"fresh"}
                return cls({scorer: {name: found[f"{scorer}.{name}"] for name in EDGES} for scorer in scorers}, found["fresh"].tolist())
        except (KeyError, EOFError, BadZipFile) as error:
            raise ValueError(f"{path}: {error}") from error


def rebuild(champion: Champion, store: Path, after: int) -> tuple[int, Rebuilt | None]:
    """The edges of a champion that is fitted anew on all events of now that count.

    Args:
        champion: what is served.
        store: the store's file.
        after: the store's row up to which the edges of before had read; 0 where there are none.

    Returns:
        The store's row up to which all was read, or `NOTHING`; and the edges, or None where there is nothing to fit, or too little came
        since then and nobody was forgotten.

    Raises:
        InputError: the artefact or the snapshot is damaged, or there are too many events.
    """
    artefact = Artefact.open(champion.folder)
    settings = artefact.manifest.scorers
    wanted = [one for one in REFITTED if one.family in settings]
    if not wanted or champion.snapshot is None:
        return NOTHING, None
    view = View(store, champion.snapshot)
    try:
        after, told, items, gone = max(after, view.cursor), set[str](), dict[str, bool](), False
        for change in view.changes():
            if isinstance(change, Event):
                told.add(change.user_id)
            elif isinstance(change, Item):
                items[change.item_id] = not change.deleted
            gone |= isinstance(change, Forgotten) and view.cursor > after
        if view.cursor - after < LEAST_TOLD and not gone:
            return view.cursor, None
        known = {item: dense for dense, item in enumerate(artefact.catalogue["item_id"])}
        fresh = [item for item, there in items.items() if there and item not in known]
        index = known | {item: len(known) + place for place, item in enumerate(fresh)}
        histories = _histories(view, told, Rules(artefact.manifest.meta, artefact.clock.has_time), index)
    finally:
        view.close()
    arrays: dict[str, dict[str, NDArray[Any]]] = {}
    for one in wanted:
        made = one(**settings[one.family]).fit(histories, len(index))
        arrays[one.family] = {name: getattr(made, name) for name in EDGES}
    return view.cursor, Rebuilt(arrays, fresh)


def _histories(view: View, told: Iterable[str], rules: Rules, index: Mapping[str, int]) -> Histories:
    """What counts of all users' events, by the night's rules; times and event names do not."""
    items, positive, lengths, many = list[NDArray[np.int32]](), list[NDArray[np.bool_]](), list[int](), 0
    for user in view.users(told):
        kept = [event for event in rules.kept(view.history(user, LONGEST_HISTORY)) if event.item_id in index]
        if len(kept) < rules.fewest:
            continue
        items.append(np.array([index[event.item_id] for event in kept], dtype=np.int32))
        positive.append(np.array([rules.positive(event) for event in kept], dtype=np.bool_))
        lengths.append(len(kept))
        many += len(kept)
        if many > MOST_EVENTS:
            raise InputError(f"of more than {MOST_EVENTS:,} events the night alone makes edges.")
    nothing = np.zeros(many, dtype=np.int64)
    dense = np.concatenate([np.zeros(0, np.int32), *items])
    good = np.concatenate([np.zeros(0, np.bool_), *positive])
    return Histories(offsets_of(lengths), dense, nothing, nothing.astype(np.int16), good, np.zeros(len(lengths), np.int64))


def main(folder: Path, store: Path, out: Path, after: int, parent: int) -> None:
    """Run as a process of its own that ends with `parent`; prints the row of the store up to which all was read."""
    from nightloom.runs.processes import tie_to_parent  # here, since workers read this module

    tie_to_parent(parent)
    os.nice(10)  # who asks goes first
    try:
        reached, made = rebuild(Champion.read(folder / CHAMPION), store, after)
    except (NightloomError, OSError, ValueError) as error:
        sys.exit(str(error))
    if made is not None:
        made.write(out)
    sys.stdout.write(str(reached))


if __name__ == "__main__":
    _folder, _store, _out = map(Path, sys.argv[1:4])
    main(_folder, _store, _out, int(sys.argv[4]), int(sys.argv[5]))
