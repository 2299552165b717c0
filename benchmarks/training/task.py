"""The task that all arms are given, by Nightloom's own collect and prepare, and how their lists are judged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nightloom.config import RunConfig
from nightloom.core import metrics
from nightloom.core.sequences import COLUMNS, Queries, Sequences
from nightloom.data.collect import collect
from nightloom.data.preparation.prepare import prepare
from nightloom.data.tables.snapshot import read_snapshot
from nightloom.encoders.load_pretrained import load_pretrained

PROTOCOL = "leave_one_out"
PARTS = ("validation", "test")


@dataclass(frozen=True)
class BenchTask:
    """Prepared data in both forms: Nightloom's folders, and parquet files for the peers.

    Attributes:
        config: the run's config, leave-one-out.
        prepared: folder of stage prepare.
        pretrained: folder of stage load_pretrained.
        events: folder with `train.parquet`, `validation.parquet` and `asked_<part>.parquet`; the test's events are not in it.
        sequences: what `prepared` holds.
    """

    config: RunConfig
    prepared: Path
    pretrained: Path
    events: Path
    sequences: Sequences

    def queries(self, part: str) -> Queries:
        """Held-out questions; a peer's lists follow their order."""
        return self.sequences.queries(part, exclude_seen=True)

    def judge(self, part: str, lists: NDArray[np.int32]) -> dict[str, float]:
        """Metrics of a peer's lists of the queries' users (a held-out item that a list lacks is a miss)."""
        return judge(self.queries(part), lists)


def judge(queries: Queries, lists: NDArray[np.int32]) -> dict[str, float]:
    """Metrics of lists, averaged over users.

    Args:
        queries: who was asked, and the items held out.
        lists: int32 [queries, k], dense items, best first, -1 for none; k is at least 20 or the catalogue.
    """
    if len(lists) != len(queries):
        raise ValueError(f"{len(lists):,} lists for {len(queries):,} users asked")
    owner = np.repeat(np.arange(len(queries)), np.diff(queries.target_offsets))
    hit = lists[owner] == queries.targets[:, None]
    ranks = np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, 0)
    return metrics.mean(metrics.per_query(ranks, queries.target_offsets))


def make_task(config: RunConfig, root: Path, folder: Path) -> BenchTask:
    """Collect, prepare, read the texts, and write the peers' files; what is there already is made anew.

    Args:
        config: leave-one-out must be among its protocols.
        root: the mlruns folder, for downloads and the cache of text vectors.
        folder: gets `prepared/`, `pretrained/` and `events/`.
    """
    prepared, pretrained, events = folder / "prepared", folder / "pretrained", folder / "events"
    for place in (prepared, pretrained, events):
        place.mkdir(parents=True, exist_ok=True)
    prepare(
        read_snapshot(collect(config.name, config.data, root).path),
        prepared,
        prepare=config.prepare,
        evaluation=config.evaluation,
        tags_separator=config.data.tags_separator,
    )
    load_pretrained(config.pretrained, prepared, root, pretrained)
    task = BenchTask(config, prepared, pretrained, events, Sequences.load(prepared / f"sequences_{PROTOCOL}.npz"))
    hand_over(task)
    return task


def latest_alone(prepared: Path, events: int, folder: Path) -> Path:
    """A prepared folder whose users have the latest `events` of their training events alone; the rest of it is linked.

    Returns:
        `folder`.
    """
    folder.mkdir()
    for path in prepared.resolve().iterdir():
        (folder / path.name).symlink_to(path)
    name = f"sequences_{PROTOCOL}.npz"
    whole = Sequences.load(prepared / name)
    owner = np.repeat(np.arange(whole.n_users), np.diff(whole.offsets))
    kept = np.arange(len(whole.items)) >= (whole.train_end - events)[owner]
    place = np.concatenate([[0], np.cumsum(kept)])
    borders = {border: place[getattr(whole, border)] for border in ("offsets", "train_end", "validation_end")}
    columns = {column: getattr(whole, column)[kept] for column in COLUMNS}
    (folder / name).unlink()
    replace(whole, **borders, **columns).save(folder / name)
    return folder


def hand_over(task: BenchTask) -> None:
    """Write the events as peers read them: dense user, dense item, and the event's place in the user's history."""
    sequences = task.sequences
    lengths = np.diff(sequences.offsets)
    user = np.repeat(np.arange(sequences.n_users), lengths)
    position = np.arange(len(sequences.items))
    frame = pd.DataFrame(
        {"user": user, "item": sequences.items.astype(np.int64), "order": position - np.repeat(sequences.offsets[:-1], lengths)}
    )
    training = position < sequences.train_end[user]
    frame[training].to_parquet(task.events / "train.parquet", index=False)
    frame[~training & (position < sequences.validation_end[user])].to_parquet(task.events / "validation.parquet", index=False)
    for part in PARTS:
        pd.DataFrame({"user": task.queries(part).users}).to_parquet(task.events / f"asked_{part}.parquet", index=False)
