"""All events as integers on disk, sorted by user and time and cleaned, of which a few million at most are in memory at a time.

The rows are dealt to buckets of whole users, which are sorted one by one; then the events that stay are dealt to their places.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nightloom.core.arrays import RawArray
from nightloom.core.counts import added
from nightloom.core.ragged import offsets_of, places, spans
from nightloom.data.preparation.clean import FEW_ITEM_EVENTS, REASONS, Part, by_user, event_times, of_noise, of_users, reasons_of
from nightloom.data.preparation.kept_rows import TEXTS, Dealt, KeptRows
from nightloom.data.preparation.labels import is_positive, seen
from nightloom.data.tables.blocks import SpeltWriter, StoredTable, Texts, head_of, numbered, picked

if TYPE_CHECKING:
    from nightloom.config import PrepareConfig

IntArray = NDArray[np.int64]

BUCKET = 1 << 22
"""Rows of a bucket, about; a user's rows are never parted."""


class Buckets:
    """Columns whose rows are dealt to several files, each of which is read by itself.

    Args:
        folder: for the files; made here.
        count: of buckets.
        before: folders with rows of the same buckets, which come before those that are dealt.
        types: of their columns.

    Attributes:
        types: of the columns, by name.
    """

    def __init__(self, folder: Path, count: int, before: Sequence[Path] = (), types: Mapping[str, np.dtype[Any]] | None = None) -> None:
        folder.mkdir()
        self.folder, self.count, self.before = folder, count, list(before)
        self.types = dict(types or {})

    def deal(self, bucket: NDArray[np.integer], columns: Mapping[str, NDArray[Any]]) -> None:
        """Add rows, each to its bucket; within a bucket they keep their order."""
        order = np.argsort(bucket.astype(np.uint16), kind="stable")  # so short integers are sorted in linear time
        ends = offsets_of(np.bincount(bucket, minlength=self.count))
        for name, column in columns.items():
            self.types[name] = column.dtype
            dealt = column[order]
            for at in range(self.count):
                self._file(at, name).add(dealt[ends[at] : ends[at + 1]])

    def read(self, at: int, *names: str) -> list[NDArray[Any]]:
        """Some columns of a bucket."""
        return [np.concatenate([file.read(0, len(file)) for file in self._files(at, name)]) for name in names]

    def write(self, at: int, columns: Mapping[str, NDArray[Any]]) -> None:
        """Put other values in the place of a bucket's columns."""
        for name, column in columns.items():
            for file in self._files(at, name):
                file.path.unlink()
            self._file(at, name).add(column)

    def _files(self, at: int, name: str) -> list[RawArray]:
        files = [RawArray(folder / f"{at}.{name}", self.types[name]) for folder in self.before] + [self._file(at, name)]
        return [file for file in files if file.path.exists()]

    def _file(self, at: int, name: str) -> RawArray:
        return RawArray(self.folder / f"{at}.{name}", self.types[name])


class Rows:
    """The events of a table with their verdicts.

    Args:
        events: canonical events.
        config: rules of cleaning and labels.
        folder: for what does not fit into memory; it exists.
        kept: what is kept of the rows from night to night; None: nothing.

    Attributes:
        users: the distinct users; likewise `items` and `names`, of events.
        count: rows.
        timed: whether events have timestamps.
        names_of: rows of each event name, int64 [names].
    """

    def __init__(self, events: pd.DataFrame | StoredTable, config: PrepareConfig, folder: Path, kept: KeptRows | None = None) -> None:
        self.users, self.items, self.names = Texts(), Texts(), Texts()
        self.count, self.timed = len(events), "timestamp" in head_of(events)
        self.names_of = np.zeros(0, dtype=np.int64)
        self._events, self._config, self._folder = events, config, folder
        self._verdicts: list[NDArray[np.int8]] = []
        begun = kept.begun() if kept else None
        if begun and 2 * begun.count * BUCKET < self.count:  # the buckets would be too large for memory
            begun = None
        if begun:
            self.users, self.items, self.names = (Texts.of(begun.texts[name]) for name in TEXTS)
            self.names_of = begun.names_of
        count = begun.count if begun else self.count // BUCKET + 1
        before, types = (begun.folders, begun.types) if begun else ((), {})
        self._buckets = Buckets(folder / "by_user", count, before, types)
        done = len(begun.parts) if begun else 0
        if kept:
            ends = len(kept.parts) - 1  # rows may yet be added to the last part
            self._deal(done, ends)
            texts = {name: getattr(self, name).values for name in TEXTS}
            folders = [*before, self._buckets.folder] if ends > done else [*before]
            kept.hold(Dealt(kept.parts[:ends], count, dict(self._buckets.types), folders, texts, self.names_of))
            done, self._buckets = ends, Buckets(folder / "last", count, folders, self._buckets.types)
        self._deal(done)

    def _deal(self, first: int, last: int | None = None) -> None:
        """Number the rows of some parts, and deal them to their buckets."""
        events, config = self._events, self._config
        texts = {"user_id": self.users, "item_id": self.items, "event": self.names}
        others = [name for name in ("timestamp", "order", "event", "value") if name in head_of(events)]
        for block, numbers in numbered(events, texts, others, first, last):
            users, names = numbers["user_id"], numbers["event"]
            rows: dict[str, NDArray[Any]] = {
                "user": users,
                "item": numbers["item_id"],
                "name": names.astype(np.int16),
                "time": event_times(block),
                "row": block.index.to_numpy(np.int64),
                "positive": is_positive(block, config),
                "seen": seen(block, config),
            }
            self._buckets.deal(users % self._buckets.count, rows)
            self.names_of = added(self.names_of, np.bincount(names, minlength=len(self.names)))

    def clean(self) -> None:
        """Sort every bucket by user, time and row, and judge which events stay; see `nightloom.data.preparation.clean.clean`."""
        names = ("user", "item", "name", "time", "row", "positive", "seen")
        for at in range(self._buckets.count):
            columns = dict(zip(names, self._buckets.read(at, *names), strict=True))
            order = by_user(columns["user"], columns["time"])
            columns = {name: column[order] for name, column in columns.items()}
            self._buckets.write(at, columns)
            user, item, name, time, _, good, _ = columns.values()
            self._verdicts.append(of_users(user, item, time, name, good, self._config, timed=self.timed))
        of_noise(self, self._config)

    def __iter__(self) -> Iterator[Part]:
        for at, verdict in enumerate(self._verdicts):
            users, items = self._buckets.read(at, "user", "item")
            yield Part(users, items, verdict)

    def removed(self) -> dict[str, int]:
        """Rows removed, by reason."""
        counts = sum(np.bincount(verdict[verdict >= 0], minlength=len(REASONS)) for verdict in self._verdicts)
        return dict(zip(REASONS, np.asarray(counts).tolist(), strict=True))

    def rare_items(self) -> list[str]:
        """Items that were removed since they have too few events, sorted."""
        rare = np.zeros(len(self.items), dtype=bool)
        for part in self:
            rare[part.items[part.verdict == REASONS.index(FEW_ITEM_EVENTS)]] = True
        return sorted(self.items.index()[rare].tolist())

    def items_in_time(self) -> pd.Index:
        """All items in the order of their first events, removed ones included."""
        first = np.full((2, len(self.items)), np.iinfo(np.int64).max)
        for at in range(self._buckets.count):
            items, times, rows = self._buckets.read(at, "item", "time", "row")
            order = np.lexsort((rows, times))
            found, places_of = np.unique(items[order], return_index=True)
            mine = np.stack([times, rows])[:, order[places_of]]
            earlier = (mine[0] < first[0, found]) | ((mine[0] == first[0, found]) & (mine[1] < first[1, found]))
            first[:, found[earlier]] = mine[:, earlier]
        return self.items.index()[np.lexsort((first[1], first[0]))]

    def kept(self, *names: str) -> Iterator[list[NDArray[Any]]]:
        """Some columns of the events that stay, a bucket at a time, by user, time and row."""
        for at, verdict in enumerate(self._verdicts):
            stay = np.flatnonzero(verdict < 0)
            yield [column[stay] for column in self._buckets.read(at, *names)]

    def tally(self) -> Tally:
        """How many events stay."""
        names, positive, items = (np.zeros(count, dtype=np.int64) for count in (len(self.names), len(self.names), len(self.items)))
        for of_name, of_item, good in self.kept("name", "item", "positive"):
            names += np.bincount(of_name, minlength=len(names))
            positive += np.bincount(of_name[good], minlength=len(names))
            items += np.bincount(of_item, minlength=len(items))
        return Tally(names, positive, items)

    def first_of(self, name: str, numbers: NDArray[np.bool_]) -> IntArray:
        """The first row that stays, in the order of the table, of each of some numbers of a column, int64 [numbers]."""
        first = np.full(len(numbers), np.iinfo(np.int64).max)
        for values, rows in self.kept(name, "row"):
            np.minimum.at(first, values[numbers[values]], rows[numbers[values]])
        return first[numbers]

    def write_removed(self, path: Path) -> None:
        """Write the removed events with their `reason`, in the order of the table."""
        verdicts = np.full(self.count, -1, dtype=np.int8)
        for at, verdict in enumerate(self._verdicts):
            verdicts[self._buckets.read(at, "row")[0]] = verdict
        with SpeltWriter(path, head_of(self._events).assign(reason=reasons_of(verdicts[:0], coded=False))) as writer:
            for gone, rows in picked(self._events, verdicts >= 0):
                writer.add(rows.assign(reason=reasons_of(verdicts[gone], coded=False)))

    def pack(self, item_codes: NDArray[np.int32], type_codes: NDArray[np.int16]) -> Packed:
        """The events that stay, by dense user, time and row. Dense users follow their first event.

        Args:
            item_codes: int32 [items], the dense item of each of `items`.
            type_codes: int16 [names], the code of each of `names`.
        """
        first = np.full((2, len(self.users)), np.iinfo(np.int64).max)
        lengths = np.zeros(len(self.users), dtype=np.int64)
        for users, times, rows in self.kept("user", "time", "row"):
            begins = np.flatnonzero(np.diff(users, prepend=-1))
            first[:, users[begins]] = times[begins], rows[begins]
            lengths[users[begins]] = np.diff(begins, append=len(users))
        order = np.lexsort((first[1], first[0]))[: np.count_nonzero(lengths)]
        dense = np.zeros(len(self.users), dtype=np.int64)
        dense[order] = np.arange(len(order))
        offsets = offsets_of(lengths[order])
        total = int(offsets[-1])
        dealt = Buckets(self._folder / "by_place", total // BUCKET + 1)
        for users, items, names, times, good, known in self.kept("user", "item", "name", "time", "positive", "seen"):
            ends = np.append(np.flatnonzero(np.diff(users, prepend=-1)), len(users))
            place = offsets[dense[users]] + places(ends)
            dense_rows: dict[str, NDArray[Any]] = {
                "place": (place % BUCKET).astype(np.int32),
                "items": item_codes[items],
                "times": times // 1000 if self.timed else np.zeros_like(times),
                **({} if self.timed else {"clock": times}),
                "event_types": type_codes[names],
                "positive": good,
                "seen": known,
            }
            dealt.deal(place // BUCKET, dense_rows)
        columns = {name: RawArray(self._folder / name, kind) for name, kind in dealt.types.items() if name != "place"}
        for at in range(dealt.count):
            (place,) = dealt.read(at, "place")
            for name, column in columns.items():
                (values,) = dealt.read(at, name)
                in_order = np.empty_like(values)
                in_order[place] = values
                column.add(in_order)
        return Packed(offsets, order, columns if "clock" in columns else {**columns, "clock": columns["times"]})


@dataclass(frozen=True)
class Tally:
    """Events that stay.

    Attributes:
        names: of each of `Rows.names`, int64 [names].
        positive: of these the positive ones, int64 [names].
        items: of each of `Rows.items`, int64 [items].
    """

    names: IntArray
    positive: IntArray
    items: IntArray


@dataclass(frozen=True)
class Packed:
    """Events by dense user, time and row, in files of their own.

    Attributes:
        offsets: int64 [users + 1].
        users: int64 [users], the number of each dense user among `Rows.users`.
        columns: those of `Sequences`, and `clock`: the times, or the order where there are none.
    """

    offsets: IntArray
    users: IntArray
    columns: Mapping[str, RawArray]

    def blocks(self, *names: str) -> Iterator[tuple[slice, IntArray, list[NDArray[Any]]]]:
        """Some columns, a few users at a time: which users, their offsets from 0 on, and the columns of their events."""
        for first, last in spans(self.offsets, BUCKET):
            begin, end = int(self.offsets[first]), int(self.offsets[last])
            yield slice(first, last), self.offsets[first : last + 1] - begin, [self.columns[name].read(begin, end) for name in names]
