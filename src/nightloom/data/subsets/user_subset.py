"""Prepared data of some users over the whole catalogue, where a model must not learn from the others."""

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

    The catalogue keeps its dense ids, so a model of the subset answers queries of all users. `meta.json` is copied; `before` may move its
    cut-offs.

    Args:
        prepared: folder of stage prepare.
        users: int64 [n], dense users to keep, ascending.
        protocol: which split.
        folder: where to write.
        hold_out: seed of the draw of users held out of the search (see `held_out_users.py`), where there are two or more. None: no user
            is, and the users' own validation events choose the epoch.
        before: time (temporal protocol, seconds since 1970) at which the test begins at the latest. Later events neither train nor choose
            the epoch. None: the cut-offs stay.

    Returns:
        Figures: `users`, their training `events` (validation included), and the number of `held_out` users; with `before` also `later`, the
        training events that it removed.

    Raises:
        InputError: the users have no training event, or too few before `before`.
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
        figures["held_out"] = search.held_out.n_users
    write_json(folder / "part.json", figures)
    return figures


def draw_users(sequences: Sequences, share: float, seed: int) -> NDArray[np.int64]:
    """Draw a share (above 0, at most 1) of the users with training events, at least one. A larger share contains every smaller one.

    Returns:
        int64 [n], dense users, ascending.
    """
    able = np.flatnonzero(sequences.train_end > sequences.offsets[:-1])
    drawn = np.random.default_rng(seed).permutation(able)[: max(1, round(share * len(able)))]
    return np.sort(drawn).astype(np.int64)
