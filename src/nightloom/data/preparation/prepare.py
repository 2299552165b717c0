"""Stage prepare: canonical tables become packed sequences, one file a protocol, and item features."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nightloom.config import EvaluationConfig, PrepareConfig, hash_json
from nightloom.core.errors import InputError
from nightloom.core.files import write_json
from nightloom.core.shell import typed
from nightloom.data.preparation.catalogue import write_catalogue
from nightloom.data.preparation.items import FeatureSpec, compose_text
from nightloom.data.preparation.kept_rows import KeptRows
from nightloom.data.preparation.labels import check_names, none_positive
from nightloom.data.preparation.protocols import parts as parts_of
from nightloom.data.preparation.protocols import split, trained_until, write_sequences
from nightloom.data.preparation.rows import BUCKET, Packed, Rows, Tally
from nightloom.data.tables.blocks import StoredTable
from nightloom.data.tables.pictures import link
from nightloom.data.tables.schema import Tables
from nightloom.runs.code import code_of


def prepare(
    tables: Tables,
    folder: Path,
    *,
    prepare: PrepareConfig,
    evaluation: EvaluationConfig,
    tags_separator: str,
    must_ask: bool = True,
    keep: Path | None = None,
) -> dict[str, Any]:
    """Clean, label, split and pack; write what ARCHITECTURE.md lists for this stage, and `removed.parquet`.

    Dense items follow the items table (or, without one, the first event of each item, removed events
    included); dense users follow their first event. Events are sorted stably: by time, then by row.

    Args:
        tables: canonical, validated tables; the events may be a table on disk (`nightloom.data.tables.blocks`).
        folder: where to write; it exists.
        prepare: rules of cleaning, labels and splits.
        evaluation: its protocols, and whether items of the history may be held out.
        tags_separator: between the tags of a cell.
        must_ask: whether a test part without any query is refused.
        keep: where rows of events in parts are kept for the next night (`nightloom.data.preparation.kept_rows`); None: they are not.

    Returns:
        Figures: events, users, items, positives, what was removed by reason, and each protocol's parts.

    Raises:
        InputError: cleaning leaves nothing; nothing is positive; the catalogue has one item only; an event's item is not in the items
            table; the data can not be split; or the test would have no query.
    """
    with tempfile.TemporaryDirectory(prefix=".rows-", dir=folder) as scratch:
        dealt = _kept(tables, prepare, keep, Path(scratch)) if keep else None
        rows = Rows(tables.events, prepare, Path(scratch), dealt)
        check_names(_named(rows, rows.names_of, np.arange(len(rows.names))), prepare)
        items = _catalogue(tables, rows)
        rows.clean()
        kept = rows.tally()
        removed = rows.removed()
        if not kept.names.any():
            raise InputError(f"events: cleaning leaves none of {rows.count:,} events: {removed}. Loosen the limits under prepare.")
        if not kept.positive.any():
            raise none_positive(_named(rows, kept.names, rows.first_of("name", kept.names > 0)), prepare)
        if len(items) < 2:
            raise InputError(
                "items: the catalogue has one item, so there is nothing to rank and every model would be perfect. Look at item_id; for "
                f"probabilities of a click on what was shown use: {typed('python', '-m', 'flows.clicks', '--help')}"
            )
        packed, event_types, type_codes = _packed(rows, kept, items)
        rows.write_removed(folder / "removed.parquet")
        user_ids = rows.users.index()[packed.users]
        links = _links(tables, user_ids)

        meta: dict[str, Any] = {"event_types": event_types, "has_time": rows.timed, "cutoffs": {}, "trained_until": {}, "counts": {}}
        latest = max(int(clock.max()) for _, _, (clock,) in packed.blocks("clock"))
        meta["latest_event"] = latest if rows.timed else None  # of all events, so that a model knows when its data end
        of_type = np.zeros(len(event_types), dtype=np.int64)
        of_type[type_codes[kept.names > 0]] = kept.positive[kept.names > 0]
        meta["default_event_type"] = event_types[of_type.argmax()]
        meta["prepare"] = prepare.model_dump(mode="json")  # so that what serves reads stored events by the same rules
        meta["rare_items"] = rows.rare_items()
        parts: dict[str, Any] = {}
        for protocol in evaluation.protocols:
            ends = split(protocol, packed, prepare)
            write_sequences(folder / f"sequences_{protocol}.npz", packed, ends, len(items), links)
            meta["cutoffs"][protocol] = {"validation": ends.validation_cutoff, "test": ends.test_cutoff}
            meta["trained_until"][protocol] = trained_until(packed, ends)
            parts[protocol] = parts_of(protocol, packed, ends, len(items), exclude_seen=evaluation.exclude_seen)
            if must_ask and not parts[protocol]["test_users"]:
                raise InputError(
                    f"events: the {protocol} test has no question: each of its {parts[protocol]['test']:,} positive events is on an item "
                    "that its user has seen before, and such are not shown again (evaluation.exclude_seen). Set evaluation.exclude_seen: "
                    "false where repeats are normal, name in prepare.positive_events or prepare.seen_events what makes an item seen, or "
                    "change prepare.keep_repeats, prepare.test_share or evaluation.protocols."
                )

        if dealt:
            dealt.keep()
    link(tables.pictures, folder)
    spec = FeatureSpec.fit(items, tables.features, tags_separator)
    spec.save(folder / "feature_spec.json")
    spec.encode(items).save(folder / "item_features.npz")
    text = compose_text(items, spec.kinds, tags_separator)
    items.assign(text=text).to_parquet(folder / "items.parquet", index=False)
    write_catalogue(items.assign(text=text), folder)
    _users(tables, user_ids).to_parquet(folder / "users.parquet", index=False)

    figures = {
        "events": int(kept.names.sum()),
        "users": len(user_ids),
        "items": len(items),
        "items_without_text": int(text.isna().sum()),
        "positive": int(kept.positive.sum()),
        "removed": removed,
        "parts": parts,
    }
    meta["counts"] = figures
    write_json(folder / "meta.json", meta)
    return figures


def _kept(tables: Tables, config: PrepareConfig, home: Path, scratch: Path) -> KeptRows | None:
    """What is kept of the rows of events in parts."""
    events: object = tables.events
    if not isinstance(events, StoredTable) or len(events.ends) < 2:
        return None
    columns = {str(name): str(column.dtype) for name, column in events.no_rows.items()}
    key = hash_json([config.model_dump(mode="json"), columns, BUCKET, code_of([Rows])])
    return KeptRows(home, key, events, scratch)


def _named(rows: Rows, counts: NDArray[np.int64], first: NDArray[np.int64]) -> pd.Series:
    """Rows of each event name that has some, the most frequent first, and of equally frequent ones the one whose row `first` is."""
    there = np.flatnonzero(counts)
    there = there[np.argsort(first, kind="stable")]
    return pd.Series(counts[there], index=rows.names.index()[there]).sort_values(ascending=False, kind="stable")


def _packed(rows: Rows, kept: Tally, items: pd.DataFrame) -> tuple[Packed, list[str], NDArray[np.int16]]:
    """The events that stay with dense items and codes of event types; the types; and each event name's code.

    Raises:
        InputError: an event's item is not in the catalogue.
    """
    item_codes = pd.Index(items["item_id"]).get_indexer(rows.items.index()).astype(np.int32)
    if (unknown := (kept.items > 0) & (item_codes < 0)).any():
        example = rows.items.index()[unknown][rows.first_of("item", unknown).argmin()]
        raise InputError(
            f"events: {kept.items[unknown].sum():,} rows have an item_id that is not in the items table, for example {example!r}. "
            "Add the items, or leave those events out."
        )
    names = rows.names.index()
    event_types = sorted(names[kept.names > 0].tolist())
    type_codes = pd.Index(event_types).get_indexer(names).astype(np.int16)
    return rows.pack(item_codes, type_codes), event_types, type_codes


def _catalogue(tables: Tables, rows: Rows) -> pd.DataFrame:
    """One row an item: its id and described columns."""
    if tables.items is None:
        return pd.DataFrame({"item_id": rows.items_in_time()})
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
