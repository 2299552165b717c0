"""Stage prepare: canonical tables become packed sequences, one file a protocol, and item features."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nightloom.config import RANDOM, EvaluationConfig, PrepareConfig
from nightloom.core.errors import InputError
from nightloom.core.files import write_json
from nightloom.core.ragged import offsets_of
from nightloom.core.sequences import Sequences
from nightloom.core.shell import typed
from nightloom.core.streaming import queries_of
from nightloom.data.preparation.catalogue import write_catalogue
from nightloom.data.preparation.clean import FEW_ITEM_EVENTS, REASONS, clean, event_times
from nightloom.data.preparation.items import FeatureSpec, compose_text
from nightloom.data.preparation.labels import check_names, positive, seen
from nightloom.data.preparation.split import Split, leave_one_out, random, temporal
from nightloom.data.tables.coded import factorize, places_in, spelt_column, write_spelt
from nightloom.data.tables.pictures import link
from nightloom.data.tables.schema import Tables


def prepare(
    tables: Tables,
    folder: Path,
    *,
    prepare: PrepareConfig,
    evaluation: EvaluationConfig,
    tags_separator: str,
    must_ask: bool = True,
) -> dict[str, Any]:
    """Clean, label, split and pack; write what ARCHITECTURE.md lists for this stage, and `removed.parquet`.

    Dense items follow the items table (or, without one, the first event of each item, removed events
    included); dense users follow their first event. Events are sorted stably: by time, then by row.

    Args:
        tables: canonical, validated tables; the text of events may be coded (`nightloom.data.tables.coded`).
        folder: where to write; it exists.
        prepare: rules of cleaning, labels and splits.
        evaluation: its protocols, and whether items of the history may be held out.
        tags_separator: between the tags of a cell.
        must_ask: whether a test part without any query is refused.

    Returns:
        Figures: events, users, items, positives, what was removed by reason, and each protocol's parts.

    Raises:
        InputError: cleaning leaves nothing; nothing is positive; the catalogue has one item only; an event's item is not in the items
            table; the data can not be split; or the test would have no query.
    """
    check_names(tables.events, prepare)
    items = _catalogue(tables)
    events, removed = clean(tables.events, prepare)
    tables = replace(tables, events=tables.events.iloc[:0].copy())  # what is large is let go as soon as it has been read
    counts = removed["reason"].value_counts()
    removed_by_reason = {reason: int(counts.get(reason, 0)) for reason in REASONS}
    if events.empty:
        raise InputError(f"events: cleaning leaves none of {len(removed):,} events: {removed_by_reason}. Loosen the limits under prepare.")
    labels = positive(events, prepare)
    if len(items) < 2:
        raise InputError(
            "items: the catalogue has one item, so there is nothing to rank and every model would be perfect. Look at item_id; for "
            f"probabilities of a click on what was shown use: {typed('python', '-m', 'flows.clicks', '--help')}"
        )
    item_codes = places_in(events["item_id"], pd.Index(items["item_id"])).astype(np.int32)
    if (item_codes < 0).any():
        unknown = spelt_column(events["item_id"][item_codes < 0])
        raise InputError(
            f"events: {len(unknown):,} rows have an item_id that is not in the items table, for example {unknown.iloc[0]!r}. "
            "Add the items, or leave those events out."
        )
    times = event_times(events)
    has_time = "timestamp" in events
    order = np.argsort(times, kind="stable")
    user_codes, user_ids = factorize(events["user_id"].iloc[order])
    order = order[np.argsort(user_codes, kind="stable")]
    offsets = offsets_of(np.bincount(user_codes))
    clock = times[order] // 1000 if has_time else times[order]
    event_types = sorted(events["event"].unique().tolist())
    event_type_codes = places_in(events["event"], pd.Index(event_types)).astype(np.int16)[order]
    labels, item_codes, seen_mask = labels[order], item_codes[order], seen(events, prepare)[order]
    del events, times, order, user_codes

    meta: dict[str, Any] = {"event_types": event_types, "has_time": has_time, "cutoffs": {}, "trained_until": {}, "counts": {}}
    meta["latest_event"] = int(clock.max()) if has_time else None  # of all events, so that a model knows when its data end
    meta["default_event_type"] = event_types[np.bincount(event_type_codes[labels]).argmax()]
    meta["prepare"] = prepare.model_dump(mode="json")  # so that what serves reads stored events by the same rules
    meta["rare_items"] = sorted(removed["item_id"][removed["reason"] == FEW_ITEM_EVENTS].unique().tolist())
    parts: dict[str, Any] = {}
    for protocol in evaluation.protocols:
        split = _split(protocol, offsets, clock, labels, prepare)
        seconds = clock if has_time else np.zeros_like(clock)
        sequences = Sequences(
            *(offsets, item_codes, seconds, event_type_codes, labels, split.train_end, split.validation_end, len(items)),
            *_links(tables, user_ids),
            seen=seen_mask,
        )  # fmt: skip
        sequences.save(folder / f"sequences_{protocol}.npz")
        meta["cutoffs"][protocol] = {"validation": split.validation_cutoff, "test": split.test_cutoff}
        meta["trained_until"][protocol] = int(clock[_before(split.validation_end, offsets)].max())
        parts[protocol] = _parts(protocol, sequences, evaluation.exclude_seen)
        if must_ask and not parts[protocol]["test_users"]:
            raise InputError(
                f"events: the {protocol} test has no question: each of its {parts[protocol]['test']:,} positive events is on an item that "
                "its user has seen before, and such are not shown again (evaluation.exclude_seen). Set evaluation.exclude_seen: false "
                "where repeats are normal, name in prepare.positive_events or prepare.seen_events what makes an item seen, or change "
                "prepare.keep_repeats, prepare.test_share or evaluation.protocols."
            )

    link(tables.pictures, folder)
    spec = FeatureSpec.fit(items, tables.features, tags_separator)
    spec.save(folder / "feature_spec.json")
    spec.encode(items).save(folder / "item_features.npz")
    text = compose_text(items, spec.kinds, tags_separator)
    items.assign(text=text).to_parquet(folder / "items.parquet", index=False)
    write_catalogue(items.assign(text=text), folder)
    _users(tables, user_ids).to_parquet(folder / "users.parquet", index=False)
    write_spelt(removed, folder / "removed.parquet")

    figures = {
        "events": len(labels),
        "users": len(user_ids),
        "items": len(items),
        "items_without_text": int(text.isna().sum()),
        "positive": int(labels.sum()),
        "removed": removed_by_reason,
        "parts": parts,
    }
    meta["counts"] = figures
    write_json(folder / "meta.json", meta)
    return figures


def _catalogue(tables: Tables) -> pd.DataFrame:
    """One row an item: its id and described columns."""
    if tables.items is None:
        order = np.argsort(event_times(tables.events), kind="stable")
        return pd.DataFrame({"item_id": spelt_column(tables.events["item_id"].iloc[order].drop_duplicates()).reset_index(drop=True)})
    if tables.features.get("text", "text") != "text":
        raise InputError("items: a column named `text` must hold text, since that name is kept for it. Rename it in data.columns.items.")
    described = [column for column in tables.items if column in tables.features and column != "item_id"]
    return tables.items[["item_id", *described]].reset_index(drop=True)


def _users(tables: Tables, user_ids: pd.Index) -> pd.DataFrame:
    """One row a dense user: its id and attributes (missing where the users table has none)."""
    users = pd.DataFrame({"user_id": user_ids})
    return users if tables.users is None else users.merge(tables.users, on="user_id", how="left")


def _links(tables: Tables, user_ids: pd.Index) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each user's links as the two arrays of `Sequences`; links to users without events are left out."""
    if tables.links is None:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    one, other = (user_ids.get_indexer(pd.Index(tables.links[column])) for column in ("user_id", "other_id"))
    pairs = np.unique(np.stack([one, other], 1)[(one >= 0) & (other >= 0) & (one != other)], axis=0).reshape(-1, 2)
    return np.searchsorted(pairs[:, 0], np.arange(len(user_ids) + 1)).astype(np.int64), pairs[:, 1].astype(np.int64)


def _split(protocol: str, offsets: NDArray[np.int64], clock: NDArray[np.int64], labels: NDArray[np.bool_], prepare: PrepareConfig) -> Split:
    if protocol != "leave_one_out":
        one_cut = random if protocol == RANDOM else temporal
        return one_cut(offsets, clock, labels, prepare.validation_share, prepare.test_share)
    split = leave_one_out(offsets, labels)
    if (split.validation_end == offsets[1:]).all():
        raise InputError(
            f"events: none of {len(offsets) - 1:,} users has the three positive events that leave-one-out needs. "
            f"Give more events, or use evaluation.protocols: [streaming], or [{RANDOM}] where the order of events is random."
        )
    return split


def _before(ends: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each event lies before its user's end, bool [events]."""
    return np.arange(offsets[-1]) < np.repeat(ends, np.diff(offsets))


def _parts(protocol: str, sequences: Sequences, exclude_seen: bool) -> dict[str, int]:
    """Positive events of each part, and users with a query in validation and test."""
    asked = {part: queries_of(protocol, sequences, part, exclude_seen=exclude_seen) for part in ("validation", "test")}
    before_validation = _before(sequences.train_end, sequences.offsets)
    before_test = _before(sequences.validation_end, sequences.offsets)
    return {
        "train": int(sequences.positive[before_validation].sum()),
        "validation": int(sequences.positive[before_test & ~before_validation].sum()),
        "test": int(sequences.positive[~before_test].sum()),
        "validation_users": len(np.unique(asked["validation"].users)),
        "test_users": len(np.unique(asked["test"].users)),
        "test_queries": len(asked["test"]),
    }
