"""The gate between challenger and champion: pure functions from per-user results to a decision with its reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from nightloom.core.errors import InputError
from nightloom.core.metrics import from_frame, whole_ranks
from nightloom.evaluation.statistics import Difference, pair_rows, paired

if TYPE_CHECKING:
    from nightloom.config import PromotionConfig

FEW_USERS = 30
"""Below this many users the decision says that its interval is rough."""


@dataclass(frozen=True)
class Comparison:
    """The challenger against a champion on one slice, or against one baseline.

    Attributes:
        name: the slice or the baseline.
        users: users that both were asked for.
        challenger: the challenger's mean.
        other: the mean of what it is compared with.
        difference: challenger - other.
        relative: difference / other; None when other is 0.
        low: lower end of the difference's interval.
        high: upper end.
        guards: whether it counts: a slice needs enough users, a baseline counts when there is no champion.
        passed: False when it stands against promotion.
    """

    name: str
    users: int
    challenger: float
    other: float
    difference: float
    relative: float | None
    low: float
    high: float
    guards: bool
    passed: bool


@dataclass(frozen=True)
class Decision:
    """What the gate decides, and why.

    Attributes:
        decision: promote or reject. The caller acts on it as `mode` says.
        reasons: plain English, with figures; those against promotion come first.
        metric: metric that decides.
        mode: enabled, dry_run or disabled, from the config.
        users: held-out users that the decision rests on.
        challenger: the challenger's mean.
        champion: the champion's mean; None without a champion, as are the next four.
        difference: challenger - champion.
        relative: difference / champion; None also when champion is 0.
        interval: (low, high) of the difference.
        threshold: least that `low` may be.
        superior: whether the whole interval lies above zero.
        slices: every slice, against the champion.
        baselines: every baseline.
        guards: names of the slices and baselines that stand against promotion.
    """

    decision: Literal["promote", "reject"]
    reasons: tuple[str, ...]
    metric: str
    mode: str
    users: int = 0
    challenger: float | None = None
    champion: float | None = None
    difference: float | None = None
    relative: float | None = None
    interval: tuple[float, float] | None = None
    threshold: float | None = None
    superior: bool = False
    slices: tuple[Comparison, ...] = ()
    baselines: tuple[Comparison, ...] = ()
    guards: tuple[str, ...] = ()


def decide(
    challenger: pd.DataFrame,
    champion: pd.DataFrame | None,
    baselines: Mapping[str, pd.DataFrame],
    config: PromotionConfig,
    *,
    seed: int = 0,
) -> Decision:
    """Decide whether the challenger may become champion.

    With a champion: both are compared on the held-out items that both were asked for, with a paired bootstrap over users. The
    challenger is not inferior when the whole interval of the difference is at or above -margin * the champion's mean; and no slice
    with at least `min_slice_users` users may have lost more than `slice_margin` of the champion's mean there with an interval
    below zero. Without a champion: the challenger must be not inferior, in the same sense, to every baseline.

    The result depends on the rows and the seed alone, not on the order of the rows.

    Args:
        challenger: rows of per_user.parquet of the gate's protocol and one family. Slices are read from `slices` (user slices,
            "a|b") and `item_slice`, where there are such columns.
        champion: those of the standing champion; None when there is none.
        baselines: family -> its rows.
        config: the gate's settings.
        seed: of the bootstrap.
    """
    if challenger.empty:
        return _reject(config, "There are no held-out users, so nothing can be said about the challenger. Give newer or more events.")
    try:
        ranks = whole_ranks(challenger["rank"])
    except InputError as error:
        return _reject(config, f"The challenger's results are broken. {error}")
    if not ranks.any():
        return _reject(config, f"The challenger could rank none of the {len(ranks):,} held-out items: its scores are not numbers.")
    return _first(challenger, baselines, config, seed) if champion is None else _against(challenger, champion, baselines, config, seed)


def _against(
    challenger: pd.DataFrame, champion: pd.DataFrame, baselines: Mapping[str, pd.DataFrame], config: PromotionConfig, seed: int
) -> Decision:
    """Non-inferiority to the champion, and the slice guards."""
    try:
        mine, its = pair_rows(challenger, champion)
        if mine.empty:
            return _reject(config, "Challenger and champion share no held-out user, so they can not be compared.")
        whole = _compare(mine, its, config, seed)
        slices = tuple(_slices(mine, its, config, seed))
        compared = tuple(_baselines(challenger, baselines, config, seed, guards=False))
    except InputError as error:
        return _reject(config, f"The results can not be compared. {error}")
    threshold = -config.margin * whole.b
    vetoes = [one for one in slices if not one.passed]

    against, told = [], [_in_words("the champion", whole, config)]
    if whole.low < threshold:
        against.append(
            f"The challenger may be worse than the margin allows: the interval's lower end {whole.low:+.4f} is below "
            f"{threshold:+.4f} ({config.margin:.1%} of the champion's {whole.b:.4f})."
        )
    else:
        told.append(
            f"The challenger is not inferior: the interval's lower end {whole.low:+.4f} is not below "
            f"{threshold:+.4f} ({config.margin:.1%} of the champion's {whole.b:.4f})."
        )
    if whole.low > 0:
        told.append("It is superior: the whole interval is above zero.")
    against += [
        f"Slice '{one.name}' ({one.users:,} users) lost {-(one.relative or 0):.1%} ({one.challenger:.4f} against {one.other:.4f}), "
        f"more than the {config.slice_margin:.0%} allowed, and its interval {one.low:+.4f} to {one.high:+.4f} excludes no loss."
        for one in vetoes
    ]
    guarding = sum(one.guards for one in slices)
    if not vetoes:
        told.append(
            f"No slice stands against it ({guarding} of {len(slices)} slices have the {config.min_slice_users:,} users that guard)."
        )
    told += _warnings(whole.users, challenger["user_id"].nunique())
    return Decision(
        decision="reject" if against else "promote",
        reasons=(*against, *told),
        metric=config.metric,
        mode=config.mode,
        users=whole.users,
        challenger=whole.a,
        champion=whole.b,
        difference=whole.difference,
        relative=whole.relative,
        interval=(whole.low, whole.high),
        threshold=threshold,
        superior=whole.low > 0,
        slices=slices,
        baselines=compared,
        guards=tuple(one.name for one in vetoes),
    )


def _first(challenger: pd.DataFrame, baselines: Mapping[str, pd.DataFrame], config: PromotionConfig, seed: int) -> Decision:
    """No champion stands: the baselines are what the challenger must match."""
    try:
        metric = from_frame(challenger)[config.metric]
        compared = tuple(_baselines(challenger, baselines, config, seed, guards=config.must_beat_baselines))
    except InputError as error:
        return _reject(config, f"The results can not be compared. {error}")
    beaten_by = [one for one in compared if not one.passed]
    against = [
        f"BaselineName '{one.name}' is not matched: {one.challenger:.4f} against {one.other:.4f}, difference {one.difference:+.4f}, whose "
        f"interval's lower end {one.low:+.4f} is below {-config.margin * one.other:+.4f} ({config.margin:.1%} of the baseline)."
        for one in beaten_by
    ]
    told = [f"No champion stands. The challenger's {config.metric} is {metric.mean():.4f} on {len(metric):,} held-out users."]
    best = max(compared, key=lambda one: one.other, default=None)
    if best is None:
        told.append("No baseline was measured, so nothing had to be matched.")
    elif not config.must_beat_baselines:
        told.append(f"Baselines do not count (must_beat_baselines is off); the best is '{best.name}' with {best.other:.4f}.")
    elif not beaten_by:
        told.append(
            f"Every baseline is matched within the margin; the best is '{best.name}' with {best.other:.4f}: difference "
            f"{best.difference:+.4f}, {config.confidence:.0%} interval {best.low:+.4f} to {best.high:+.4f}."
        )
    return Decision(
        decision="reject" if against else "promote",
        reasons=(*against, *told, *_warnings(len(metric), len(metric))),
        metric=config.metric,
        mode=config.mode,
        users=len(metric),
        challenger=float(metric.mean()),
        baselines=compared,
        guards=tuple(one.name for one in beaten_by),
    )


def _baselines(
    challenger: pd.DataFrame, baselines: Mapping[str, pd.DataFrame], config: PromotionConfig, seed: int, *, guards: bool
) -> list[Comparison]:
    """The challenger against every baseline, by name."""
    found = []
    for name in sorted(baselines):
        one = _compare(*pair_rows(challenger, baselines[name]), config, seed)
        found.append(_comparison(name, one, guards=guards, passed=not guards or one.low >= -config.margin * one.b))
    return found


def _slices(mine: pd.DataFrame, its: pd.DataFrame, config: PromotionConfig, seed: int) -> list[Comparison]:
    """Challenger against champion on every slice, by name; the two frames hold the same rows."""
    found = []
    for name, rows in sorted(_masks(mine).items()):
        one = _compare(mine[rows], its[rows], config, seed)
        guards = one.users >= config.min_slice_users
        lost = one.difference < -config.slice_margin * one.b and one.high < 0
        found.append(_comparison(name, one, guards=guards, passed=not (guards and lost)))
    return found


def _masks(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Slice name -> bool [rows]: rows of the slice's users, or of its held-out items."""
    masks: dict[str, np.ndarray] = {}
    if "slices" in frame:
        joined, names = pd.factorize(frame["slices"])
        for code, labels in enumerate(names):
            for name in filter(None, str(labels).split("|")):
                masks[name] = masks.get(name, np.zeros(len(frame), dtype=bool)) | (joined == code)
    if "item_slice" in frame:
        masks |= {str(name): (frame["item_slice"] == name).to_numpy(dtype=bool) for name in frame["item_slice"].dropna().unique()}
    return masks


def _compare(mine: pd.DataFrame, its: pd.DataFrame, config: PromotionConfig, seed: int) -> Difference:
    """The deciding metric over rows that two families share."""
    metric: str = config.metric
    a, b = ({metric: from_frame(frame)[metric].to_numpy(dtype=np.float64)} for frame in (mine, its))
    return paired(a, b, confidence=config.confidence, resamples=config.resamples, seed=seed)[metric]


def _comparison(name: str, one: Difference, *, guards: bool, passed: bool) -> Comparison:
    return Comparison(name, one.users, one.a, one.b, one.difference, one.relative, one.low, one.high, guards, passed)


def _in_words(other: str, one: Difference, config: PromotionConfig) -> str:
    relative = "" if one.relative is None else f" ({one.relative:+.1%})"
    return (
        f"{config.metric} {one.a:.4f} against {one.b:.4f} of {other} on the same {one.users:,} held-out users: difference "
        f"{one.difference:+.4f}{relative}, {config.confidence:.0%} interval {one.low:+.4f} to {one.high:+.4f}."
    )


def _warnings(users: int, asked: int) -> list[str]:
    said = []
    if users < asked:
        said.append(f"{asked - users:,} of the challenger's {asked:,} held-out users were not asked of the champion and are left out.")
    if users < FEW_USERS:
        said.append(f"With only {users:,} held-out users the interval is rough.")
    return said


def _reject(config: PromotionConfig, reason: str) -> Decision:
    return Decision("reject", (reason,), config.metric, config.mode)
