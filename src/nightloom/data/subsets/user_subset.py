"""Prepared data of some of the users, over the whole catalogue: what may be learned from when the others must not be."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nightloom.core.errors import InputError
from nightloom.core.files import write_json
from nightloom.core.sequences import Sequences
from nightloom.data.subsets.held_out_users import Search
from nightloom.data.subsets.time_cutoff import ended

CATALOGUE = ("items.parquet", "catalogue.safetensors", "item_features.npz", "feature_spec.json", "meta.json")


def user_ids(prepared: Path) -> NDArray[np.object_]:
    """User ids of a folder of stage prepare, by dense id."""
    return pd.read_parquet(prepared / "users.parquet", columns=["user_id"])["user_id"].to_numpy(dtype=object)


def write_user_subset(
    prepared: Path, users: NDArray[np.int64], protocol: str, folder: Path, hold_out: int | None = None, before: int | None = None
) -> dict[str, Any]:
    """Write a prepared folder that holds some users of another one; training reads it like any other.

    The catalogue keeps its dense ids, so a model of the part answers queries of the whole. `meta.json` is that of the whole, but
    for the cutoffs where `before` moves them.

    Args:
        prepared: folder of stage prepare.
        users: int64 [n], dense users that are kept, ascending.
        protocol: which split.
        folder: where to write.
        hold_out: seed by which some of them are held out of the search for the best epoch (see `held_out_users.py`),
            where there are two or more; None: nobody is, and their own validation events choose it.
        before: time (temporal protocol, in seconds since 1970) at which the test begins at the latest: nothing from it on is learned,
            nor chooses the epoch; None: the cutoffs are those of the whole.

    Returns:
        Figures: `users`, the training `events` that they have, validation included, and `held_out`, how many of the users are; with
        `before` also `later`, training events that it left out.

    Raises:
        InputError: the users have no event to learn from, or too few before `before`.
    """
    sequences = Sequences.load(prepared / f"sequences_{protocol}.npz").of_users(users)
    whole = len(sequences.train(with_validation=True).items)
    split = None if before is None else ended(sequences, before)
    if split is not None:
        sequences = replace(sequences, train_end=split.train_end, validation_end=split.validation_end)
    events = len(sequences.train(with_validation=True).items)
    if not len(sequences.train().items):
        raise InputError(f"{prepared}: the {len(users):,} users that may be learned from have no event in training. Take more users.")
    folder.mkdir(parents=True, exist_ok=True)
    for name in CATALOGUE:
        shutil.copyfile(prepared / name, folder / name)
    if split is not None:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        meta["cutoffs"][protocol] = {"validation": split.validation_cutoff, "test": split.test_cutoff}
        meta["trained_until"][protocol] = int(sequences.train(with_validation=True).times.max())
        write_json(folder / "meta.json", meta)
    pd.read_parquet(prepared / "users.parquet").iloc[users].to_parquet(folder / "users.parquet", index=False)
    sequences.save(folder / f"sequences_{protocol}.npz")
    figures = {"users": len(users), "events": events, "held_out": 0}
    if before is not None:
        figures["later"] = whole - events
    if hold_out is not None and len(users) > 1:
        search = Search.of(sequences, hold_out, alone=protocol == "leave_one_out")
        search.save(folder, protocol)
        figures["held_out"] = search.asked.n_users
    write_json(folder / "part.json", figures)
    return figures


def draw_users(sequences: Sequences, share: float, seed: int) -> NDArray[np.int64]:
    """A share (above 0, at most 1) of the users who have training events, at least one; a larger share holds every smaller one.

    Returns:
        int64 [n], dense users, ascending.
    """
    able = np.flatnonzero(sequences.train_end > sequences.offsets[:-1])
    drawn = np.random.default_rng(seed).permutation(able)[: max(1, round(share * len(able)))]
    return np.sort(drawn).astype(np.int64)
