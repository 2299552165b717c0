"""A backtest over past nights: trained from scratch, warm-started from the night before, or frozen since the first night.

Night k knows the events before its moment and is evaluated on those until the next night's. Each night is an ordinary prepared folder
whose test part is that period, so training and ranking are those of a real night.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nightloom.config import EvaluationConfig, PrepareConfig
from nightloom.core.errors import InputError
from nightloom.core.event_names import EventNames
from nightloom.core.metrics import per_query
from nightloom.core.ranking import ranks
from nightloom.core.recommender import Recommender
from nightloom.core.sequences import Sequences
from nightloom.data.preparation.clean import DAY_MS, clean, event_times
from nightloom.data.preparation.labels import positive
from nightloom.data.preparation.prepare import prepare
from nightloom.data.tables.schema import Tables
from nightloom.encoders.vectors import Vectors
from nightloom.evaluation.statistics import resampled_means
from nightloom.experiments.arguments import check_nights
from nightloom.packaging.bundle import Bundle

ARMS = ("scratch", "warm", "frozen", "frozen_new_scorers")
"""Trained from scratch; from the night before; the first night's model; its network with tonight's scorers."""
METRIC = "ndcg_at_10"
RESAMPLES = 2000


@dataclass(frozen=True)
class Moment:
    """One night of a replay.

    Attributes:
        at: events before this are known, milliseconds since 1970 UTC.
        until: the night is evaluated on events from `at` until before this.
    """

    at: int
    until: int

    @property
    def day(self) -> str:
        """The date of `at`."""
        return str(pd.Timestamp(self.at, unit="ms").date())


def moments(events: pd.DataFrame, nights: int, step_days: float, first: str | None = None) -> list[Moment]:
    """The nights of a replay, one after the other, at midnight UTC.

    Args:
        events: canonical events, with timestamps.
        nights: how many.
        step_days: days from one to the next.
        first: date of the first; by default the last night's period ends with the data.

    Raises:
        InputError: there is no night, the events have no times, or the nights lie outside them.
    """
    check_nights(nights, step_days)
    if "timestamp" not in events:
        raise InputError("events: a replay needs timestamps. Map a `timestamp` column in data.columns.events.")
    times, step = event_times(events), round(step_days * DAY_MS)
    begins, ends = int(times.min()), int(times.max())
    try:
        start = (ends // DAY_MS + 1) * DAY_MS - nights * step if first is None else int(pd.Timestamp(first).value // 1_000_000)
    except ValueError as error:
        raise InputError(f"--from {first}: not a date. Write it as 2011-06-01.") from error
    if not begins < start or start + (nights - 1) * step > ends:
        span = f"{pd.Timestamp(begins, unit='ms').date()} to {pd.Timestamp(ends, unit='ms').date()}"
        raise InputError(f"events: they reach from {span}, and {nights} nights {step_days:g} days apart do not fit. Use fewer, or --from.")
    return [Moment(start + night * step, start + (night + 1) * step) for night in range(nights)]


def write_moment(
    tables: Tables, moment: Moment, folder: Path, *, rules: PrepareConfig, evaluation: EvaluationConfig, tags_separator: str
) -> dict[str, Any]:
    """Stage prepare for one night of the past, its test part being the period that the night is judged on.

    The split goes by shares, so this computes the shares that put the cut-offs at the night. The validation part is
    `prepare.validation_share` of the known events.

    Args:
        tables: canonical, validated tables.
        moment: the night.
        folder: where to write; it exists.
        rules: the config's section `prepare`.
        evaluation: see `nightloom.data.preparation.prepare.prepare`.
        tags_separator: likewise.

    Raises:
        InputError: nothing positive happened before or in the period.
    """
    events = tables.events[event_times(tables.events) < moment.until].reset_index(drop=True)
    kept = clean(events, rules)[0]
    good = positive(kept, rules)
    known = event_times(kept)[good] < moment.at
    held_out = 1 - known.mean()
    if not 0 < held_out < 0.5:
        raise InputError(
            f"night {moment.day}: {int(known.sum()):,} positive events are known and {int((~known).sum()):,} follow in its period. "
            "Both must be there, the second the fewer: use a later --from, or another --step-days."
        )
    shares = {"test_share": held_out, "validation_share": rules.validation_share * (1 - held_out)}
    past = Tables(events, tables.items, tables.users, None, rejected={}, features=tables.features, pictures=tables.pictures)
    dated = rules.model_copy(update=shares)
    # A night without queries counts nothing among the others.
    return prepare(past, folder, prepare=dated, evaluation=evaluation, tags_separator=tags_separator, must_ask=False)


def judge(prepared: Path, pretrained: Path, bundles: Mapping[str, Path], *, exclude_seen: bool) -> pd.DataFrame:
    """NDCG@10 of every arm for the users of one night's period.

    Args:
        prepared: the night's prepared folder.
        pretrained: its vectors of texts and pictures.
        bundles: `scratch` and `warm`, trained this night, and `frozen`, of the first.
        exclude_seen: whether items of the history are left out.

    Returns:
        One row a user: `user_id` and a column an arm.
    """
    items, users = pd.read_parquet(prepared / "items.parquet"), pd.read_parquet(prepared / "users.parquet")
    sequences = Sequences.load(prepared / "sequences_temporal.npz")
    queries = sequences.queries("test", exclude_seen=exclude_seen)
    event_types = json.loads((prepared / "meta.json").read_text(encoding="utf-8"))["event_types"]
    found: dict[str, Any] = {"user_id": users["user_id"].to_numpy(dtype=object)[queries.users]}

    def ask(arm: str, model: Recommender, names: EventNames) -> None:
        ranked = ranks(model, names.recoded(queries, event_types), exclude_seen=exclude_seen, name=arm)
        found[arm] = per_query(ranked.ranks, ranked.offsets)[METRIC]

    for arm in ("scratch", "warm"):
        bundle = Bundle.load(bundles[arm])
        ask(arm, bundle.recommender, bundle.event_names)
    first = Bundle.load(bundles["frozen"])
    frozen = first.reindex(items, Vectors.load(pretrained))
    ask("frozen", frozen, first.event_names)
    newer = frozen.fit(sequences.train(with_validation=True), len(items))
    ask("frozen_new_scorers", newer, first.event_names)
    return pd.DataFrame(found)


def summary(judged: Sequence[pd.DataFrame], nights: Sequence[Mapping[str, Any]], confidence: float = 0.95) -> dict[str, Any]:
    """The replay's ratios.

    The first night, on which all arms are one model, is left out of every ratio.

    Args:
        judged: the frames of `judge`, night by night.
        nights: for each night `cpu_seconds`: arm -> seconds of training.
        confidence: of the intervals, which are over users drawn with replacement, nights pooled.

    Returns:
        `ratios`: name -> `value`, `low`, `high` (mean NDCG@10 of the first arm over the second's, users of all nights pooled),
        `cpu_share`: training time of warm over scratch, `users`: queries in all, `nights`: how many count.
    """
    pooled = pd.concat(judged[1:] or judged)[list(ARMS)].to_numpy(dtype=np.float64)
    drawn = resampled_means(pooled, RESAMPLES, seed=0)
    ratios = {}
    for name, first, second in (
        ("warm/scratch", 1, 0),
        ("frozen/scratch", 2, 0),
        ("frozen_new_scorers/scratch", 3, 0),
        ("frozen/warm", 2, 1),
    ):
        below = np.maximum(drawn[:, second], 1e-12)
        low, high = np.quantile(drawn[:, first] / below, [(1 - confidence) / 2, (1 + confidence) / 2])
        means = pooled.mean(0)
        ratios[name] = {"value": float(means[first] / max(means[second], 1e-12)), "low": float(low), "high": float(high)}
    spent = {arm: sum(night["cpu_seconds"][arm] for night in nights[1:] or nights) for arm in ("scratch", "warm")}
    share = spent["warm"] / max(spent["scratch"], 1e-12)
    return {"ratios": ratios, "cpu_share": share, "cpu_seconds": spent, "users": len(pooled), "nights": len(judged[1:] or judged)}


def markdown(nights: Sequence[Mapping[str, Any]], found: Mapping[str, Any]) -> str:
    """The nights as a table, and the ratios below it."""
    head = "| night | users | " + " | ".join(f"{arm.replace('_', ' ')} NDCG@10" for arm in ARMS)
    head += " | scratch CPU s | warm CPU s | scratch epochs | warm epochs |"
    rows = [head, "|---" * (8 + 2) + "|"]
    for night in nights:
        values = " | ".join(f"{night[METRIC][arm]:.4f}" for arm in ARMS)
        spent, epochs = night["cpu_seconds"], night["epochs"]
        rows.append(
            f"| {night['day']} | {night['users']:,} | {values} | {spent['scratch']:.0f} | {spent['warm']:.0f} | {epochs['scratch']} | "
            f"{epochs['warm']} |"
        )
    lines = [
        f"- {name}: {one['value']:.3f} of the NDCG@10, 95 % interval {one['low']:.3f} to {one['high']:.3f}"
        for name, one in found["ratios"].items()
    ]
    spent = found["cpu_seconds"]
    lines.append(f"- training time warm/scratch: {found['cpu_share']:.1%} ({spent['warm']:.0f} of {spent['scratch']:.0f} CPU seconds)")
    line = f"Over {found['nights']} nights after the first and {found['users']:,} questions:"
    return "\n".join(rows) + f"\n\n{line}\n\n" + "\n".join(lines) + "\n"


def plot(path: Path, nights: Sequence[Mapping[str, Any]], title: str) -> None:
    """Retrained nightly against frozen: NDCG@10 by night, and training time."""
    from nightloom.evaluation import plots

    days = [night["day"] for night in nights]
    styles = {
        "scratch": (plots.MODEL, "o-"),
        "warm": (plots.BETTER, "s-"),
        "frozen": (plots.WORSE, "^--"),
        "frozen_new_scorers": (plots.OTHER, "v--"),
    }
    with plots.figure(path, title, 4.2, columns=2, sharey=False) as (quality, time):
        for arm, (colour, style) in styles.items():
            quality.plot(days, [night[METRIC][arm] for night in nights], style, color=colour, label=arm.replace("_", " "), markersize=4)
        for arm in ("scratch", "warm"):
            spent = [night["cpu_seconds"][arm] for night in nights]
            time.plot(days, spent, styles[arm][1], color=styles[arm][0], markersize=4)
        quality.set_ylabel("NDCG@10 on the period that followed")
        time.set_ylabel("training, CPU seconds")
        time.set_ylim(bottom=0)
        for axis in (quality, time):
            axis.tick_params(axis="x", rotation=60)
        quality.figure.legend(loc="outside upper right", frameon=False, ncols=4, fontsize=8)


def write(folder: Path, judged: pd.DataFrame, figures: Mapping[str, Any]) -> dict[str, Any]:
    """Write one night's `per_user.parquet` and give its line of the table.

    Args:
        folder: the night's.
        judged: what `judge` gave.
        figures: arm -> figures of its training.
    """
    judged.to_parquet(folder / "per_user.parquet", index=False)
    line = {
        "users": len(judged),
        METRIC: {arm: float(judged[arm].mean()) if len(judged) else 0.0 for arm in ARMS},
        "cpu_seconds": {arm: one["cpu_seconds"] for arm, one in figures.items()},
        "seconds": {arm: one["seconds"] for arm, one in figures.items()},
        "epochs": {arm: one["epochs"] + one["refitted"] * one["best_epoch"] for arm, one in figures.items()},
        "weights": {arm: one["weights"] for arm, one in figures.items()},
        "cold_because": figures["warm"].get("cold_because"),
    }
    return json.loads(json.dumps(line))
