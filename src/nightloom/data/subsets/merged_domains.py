"""Prepared data of two domains that share items: the source's histories join the target's, over the target's catalogue."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nightloom.core.files import write_json
from nightloom.core.ragged import offsets_among
from nightloom.core.sequences import COLUMNS, Histories, Sequences
from nightloom.data.subsets.held_out_users import Search
from nightloom.data.subsets.time_cutoff import cutoff_of
from nightloom.data.subsets.user_subset import CATALOGUE

MOST_REPEATS = 7
"""Most repeats of the target's histories: beyond that, few histories would be memorised."""


def write_merged_domains(part: Path, source: Path, same: NDArray[np.int64], protocol: str, folder: Path) -> dict[str, Any]:
    """Write a prepared folder with the users of two others; training reads it like any other.

    The catalogue, its dense ids and the cut-offs are the target's. Users of the source come after those of the target, with their events
    on shared items. All of these are for training, so validation and test hold the target's users alone. Event types that only the source
    has come after the target's. The source's links are left out, since scorers read links at the query only.

    Under the temporal protocol the source's events from the target's validation cut-off on are left out, since they lie in the queries'
    future. The refit leaves them out too: it adds the target's validation part only.

    Where the source has more events, the target's training histories are repeated after it, as users without validation and test. Both
    domains then weigh alike; otherwise the source drowns what is particular to the target (measured in benchmarks/transfer.md). Where
    some of the target's users are held out of the search, the source joins the others there likewise.

    Args:
        part: prepared folder of the target, of all its users or some.
        source: prepared folder of the source, without users of the target.
        same: int64 [items of the target], dense items of the source, each at most once; -1 where an item is not shared.
        protocol: which split.
        folder: where to write.

    Returns:
        Figures: `users` and `events` that joined; events left out because their item is not shared (`other_items`) or because they are not
        before the cut-off (`later`); and `repeats` of the target's histories.

    Raises:
        InputError: the protocol is temporal, and one of the two has no times.
    """
    here, there = (Sequences.load(place / f"sequences_{protocol}.npz") for place in (part, source))
    meta, theirs = (json.loads((place / "meta.json").read_text(encoding="utf-8")) for place in (part, source))
    cutoff = cutoff_of(part, source, protocol)
    item = np.full(there.n_items, -1, dtype=np.int64)
    item[same[same >= 0]] = np.flatnonzero(same >= 0)
    shared = item[there.items] >= 0
    early = np.full(len(shared), True) if cutoff is None else there.times < cutoff
    event_types = [*meta["event_types"], *(name for name in theirs["event_types"] if name not in meta["event_types"])]
    code = np.array([event_types.index(name) for name in theirs["event_types"]], dtype=np.int16)
    known = kept_events(there, shared & early)
    times = known.times if meta["has_time"] else np.zeros_like(known.times)
    joining = replace(known, items=item[known.items].astype(np.int32), event_types=code[known.event_types], times=times)
    users = np.flatnonzero(joining.lengths)
    joining = joining.take(users)
    repeats = min(MOST_REPEATS, max(0, round(len(joining.items) / max(len(here.train().items), 1)) - 1))

    folder.mkdir(parents=True, exist_ok=True)
    for name in CATALOGUE:
        shutil.copyfile(part / name, folder / name)
    write_json(folder / "meta.json", meta | {"event_types": event_types})
    own, guests = pd.read_parquet(part / "users.parquet"), pd.read_parquet(source / "users.parquet", columns=["user_id"])
    pd.concat([own, guests.iloc[users], *[own] * repeats], ignore_index=True).to_parquet(folder / "users.parquet", index=False)
    weighed_alike(here, joining, repeats).save(folder / f"sequences_{protocol}.npz")
    if search := Search.load(part, protocol):
        replace(search, learned=weighed_alike(search.learned, joining, repeats)).save(folder, protocol)
    figures = {
        "users": len(users),
        "events": len(joining.items),
        "other_items": int((~shared).sum()),
        "later": int((shared & ~early).sum()),
        "repeats": repeats,
    }
    write_json(folder / "together.json", figures)
    return figures


def kept_events(sequences: Sequences, kept: NDArray[np.bool_]) -> Histories:
    """All events of every user, those of validation and test too, less those that are not kept (bool [events])."""
    offsets = offsets_among(sequences.offsets, kept)
    columns = {name: getattr(sequences, name)[kept] for name in COLUMNS}
    return Histories(offsets, request_time=np.zeros(sequences.n_users, dtype=np.int64), **columns)


def weighed_alike(sequences: Sequences, joining: Histories, repeats: int) -> Sequences:
    """Sequences, then the joining histories, then the own training histories, repeated."""
    merged = with_histories(sequences, joining)
    for _ in range(repeats):
        merged = with_histories(merged, sequences.train())
    return merged


def with_histories(sequences: Sequences, more: Histories) -> Sequences:
    """Sequences with more users at the end; all events of these are for training, and they have no links."""
    last, ends = sequences.offsets[-1], sequences.offsets[-1] + more.offsets[1:]
    linked = sequences.link_offsets
    columns: dict[str, Any] = {name: np.concatenate([getattr(sequences, name), getattr(more, name)]) for name in COLUMNS}
    return replace(
        sequences,
        offsets=np.concatenate([sequences.offsets, last + more.offsets[1:]]),
        train_end=np.concatenate([sequences.train_end, ends]),
        validation_end=np.concatenate([sequences.validation_end, ends]),
        link_offsets=np.concatenate([linked, np.full(len(more), linked[-1])]) if len(linked) else linked,
        **columns,
    )
