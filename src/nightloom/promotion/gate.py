"""The gate between challenger and champion: pure functions from per-user results to a decision with its reasons.

What it promises is simulated in `benchmarks/gate.py`: how often a model that is worse by the margin passes, and how often a harmless
one is stopped. It also says what is left after ninety nights of small losses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from nightloom.core.errors import InputError
from nightloom.core.metrics import whole_ranks
from nightloom.evaluation.score_interval import holm, loss_p_value
from nightloom.evaluation.statistics import pair_rows
from nightloom.promotion import gate_words as words
from nightloom.promotion.comparison import Comparison, Pair, Rows, compare, described, earlier_pairs, slices_of

if TYPE_CHECKING:
    from nightloom.config import PromotionConfig

CHAMPION, ANCHOR = "champion", "anchor"
MOST_NIGHTS = 7
"""Nights whose users are pooled at most, tonight among them."""


@dataclass(frozen=True)
class Decision:
    """What the gate decides, and why.

    Attributes:
        decision: promote or reject. The caller acts on it as `mode` says.
        reasons: plain English, with figures; those against promotion come first.
        metric: metric that decides.
        mode: enabled, review, dry_run or disabled, from the config.
        users: held-out users that the decision rests on.
        queries: of these users; means are over them.
        challenger: the challenger's mean.
        champion: the champion's mean; None without a champion, as are the next four.
        difference: challenger - champion.
        relative: difference / champion; None also when champion is 0.
        interval: (low, high) of the difference.
        threshold: least that `low` may be.
        superior: whether the whole interval lies above zero.
        slices: every slice, against the champion.
        baselines: every baseline.
        guards: names of the slices, baselines and the anchor that stand against promotion.
        anchor: the best model of before, which losses may not add up against; None where there is none, or it is the champion.
        moves_anchor: whether the challenger, once promoted, is the best model from now on.
        nights: nights whose users are pooled.
        smallest_loss: smallest loss against the champion that these users could show, as a share of its mean.
        equal_passes: probability that an equal model passes the margin on such users.
        held: why nothing is promoted whatever was found, in a sentence; empty where nothing is held.
        limits: other limits that were checked (`nightloom.promotion.trust.Limit`).
    """

    decision: Literal["promote", "reject"]
    reasons: tuple[str, ...]
    metric: str
    mode: str
    users: int = 0
    queries: int = 0
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
    anchor: Comparison | None = None
    moves_anchor: bool = False
    nights: int = 1
    smallest_loss: float | None = None
    equal_passes: float | None = None
    held: str = ""
    limits: tuple[Any, ...] = ()


def decide(
    challenger: pd.DataFrame,
    champion: pd.DataFrame | None,
    baselines: Mapping[str, pd.DataFrame],
    config: PromotionConfig,
    *,
    seed: int = 0,
    anchor: pd.DataFrame | None = None,
    earlier: Sequence[Rows] = (),
) -> Decision:
    """Decide whether the challenger may become champion.

    Fewer than `gate_words.FEWEST_USERS` users decide nothing, and nothing is promoted.

    Without a champion the challenger must be not inferior to every baseline: the whole interval of the difference lies at or above
    -margin times the baseline's mean. With a champion:

    - It must be not inferior to the champion, in the same sense.
    - It must be not inferior to the anchor within `anchor_margin`. Compared with the champion alone, losses inside the margin add up.
    - No guarding slice, and no baseline, may have lost significantly more than is allowed (see `slices_of`).

    Where tonight's users are so few that an equal model would fail more often than not, users of earlier nights are added, each
    user once. The result depends on the rows and the seed alone, not on the order of the rows.

    Args:
        challenger: rows of per_user.parquet of the gate's protocol and one family. Slices are read from `slices` (user slices,
            "a|b") and `item_slice`, where there are such columns.
        champion: those of the standing champion; None when there is none.
        baselines: family -> its rows.
        config: the gate's settings.
        seed: of the bootstrap. A night leaves it as it is, so that `nightloom compare` says the same interval.
        anchor: rows of the best model of before; None when that is the champion.
        earlier: of each earlier night with the same champion, the latest first: "challenger", "champion", "anchor" -> rows.
    """
    if challenger.empty:
        return _reject(config, "There are no held-out users, so nothing can be said about the challenger. Give newer or more events.")
    try:
        ranks = whole_ranks(challenger["rank"])
    except InputError as error:
        return _reject(config, f"The challenger's results are broken. {error}")
    if not ranks.any():
        return _reject(config, f"The challenger could rank none of the {len(ranks):,} held-out items: its scores are not numbers.")
    try:
        if champion is None:
            return _first(challenger, baselines, config, seed)
        return _against(challenger, champion, anchor, baselines, config, seed, earlier[: MOST_NIGHTS - 1])
    except InputError as error:
        return _reject(config, f"The results can not be compared. {error}")


def with_limits(decision: Decision, rivals: Mapping[str, Mapping[str, Any]], notes: Sequence[str] = ()) -> Decision:
    """The decision with what limits its comparisons among the reasons.

    Args:
        decision: what `decide` found.
        rivals: champion, anchor -> `nightloom.evaluation.rivals.Rival.figures`.
        notes: what else does, in sentences.
    """
    limits = [line for name, figures in rivals.items() for line in words.limits(name, figures)]
    return replace(decision, reasons=(*decision.reasons, *limits, *notes))


def held_back(decision: Decision, why: str) -> Decision:
    """The decision where nothing may be promoted: rejected, with that reason first.

    Args:
        decision: what `decide` found.
        why: in a sentence.
    """
    return replace(decision, decision="reject", held=why, reasons=(why, *decision.reasons), moves_anchor=False)


def _against(
    challenger: pd.DataFrame,
    champion: pd.DataFrame,
    anchor: pd.DataFrame | None,
    baselines: Mapping[str, pd.DataFrame],
    config: PromotionConfig,
    seed: int,
    earlier: Sequence[Rows],
) -> Decision:
    """Non-inferiority to champion and anchor, and the guards."""
    mine, its = pair_rows(challenger, champion)
    if mine.empty:
        return _reject(config, "Challenger and champion share no held-out user, so they can not be compared.")
    metric = config.metric
    whole = compare(CHAMPION, Pair.of(mine, its, metric), earlier_pairs(CHAMPION, earlier, metric), config.margin, config, seed)
    best = None
    if anchor is not None:
        pair = Pair.of(*pair_rows(challenger, anchor), metric)
        best = compare(ANCHOR, pair, earlier_pairs(ANCHOR, earlier, metric), config.anchor_margin, config, seed)
    slices = tuple(slices_of(mine, its, config, seed))
    compared = tuple(_shown_losses(challenger, baselines, config, seed))
    stand = ([whole] if best is None else [whole, best]) + [*slices, *compared]
    against = [
        *words.too_few(whole.users),
        *words.margins(whole, best, config),
        *(words.slice_lost(one, config) for one in slices if not one.passed),
        *(words.baseline_lost(one, config) for one in compared if not one.passed),
    ]
    rows, users = challenger["user_id"].nunique(), len(set(mine["user_id"]))
    return Decision(
        decision="reject" if against else "promote",
        reasons=(*against, *words.told(whole, best, slices, config), *words.warnings(users, rows, whole)),
        metric=config.metric,
        mode=config.mode,
        users=whole.users,
        queries=whole.queries,
        challenger=whole.challenger,
        champion=whole.other,
        difference=whole.difference,
        relative=whole.relative,
        interval=(whole.low, whole.high),
        threshold=-config.margin * whole.other,
        superior=whole.low > 0,
        slices=slices,
        baselines=compared,
        guards=tuple(one.name for one in stand if not one.passed and one is not whole),
        anchor=best,
        moves_anchor=not against and (best or whole).low > 0,
        nights=whole.nights,
        smallest_loss=whole.smallest_loss,
        equal_passes=whole.equal_passes,
    )


def _first(challenger: pd.DataFrame, baselines: Mapping[str, pd.DataFrame], config: PromotionConfig, seed: int) -> Decision:
    """No champion stands: the baselines are what the challenger must match."""
    alone = Pair.of(challenger, challenger, config.metric)
    compared = tuple(
        compare(name, Pair.of(*pair_rows(challenger, baselines[name]), config.metric), iter(()), config.margin, config, seed)
        for name in sorted(baselines)
    )
    if not config.must_beat_baselines:
        compared = tuple(replace(one, guards=False, passed=True) for one in compared)
    beaten_by = [one for one in compared if not one.passed]
    users, queries = len(alone.users), int(alone.queries.sum())
    against = [*words.too_few(users), *(words.not_matched(one, config) for one in beaten_by)]
    told = words.first(float(alone.mine.mean()), users, queries, compared, config)
    return Decision(
        decision="reject" if against else "promote",
        reasons=(*against, *told, *words.warnings(users, users)),
        metric=config.metric,
        mode=config.mode,
        users=users,
        queries=queries,
        challenger=float(alone.mine.mean()),
        baselines=compared,
        guards=tuple(one.name for one in beaten_by),
        moves_anchor=not against,
    )


def _shown_losses(challenger: pd.DataFrame, baselines: Mapping[str, pd.DataFrame], config: PromotionConfig, seed: int) -> list[Comparison]:
    """The challenger against every baseline, by name; one guards by a significant loss beyond the margin, as slices do."""
    pairs = {name: Pair.of(*pair_rows(challenger, baselines[name]), config.metric) for name in sorted(baselines)}
    p_values = [loss_p_value(pair.mine - pair.its) for pair in pairs.values()]
    lost = dict(zip(pairs, holm(p_values, 1 - config.confidence), strict=True))
    found = []
    for name, pair in pairs.items():
        one = pair.difference(config, seed)
        passed = not (config.must_beat_baselines and lost[name] and one.difference < -config.margin * one.b)
        found.append(described(name, pair, one, config.margin, config, guards=config.must_beat_baselines, passed=passed))
    return found


def _reject(config: PromotionConfig, reason: str) -> Decision:
    return Decision("reject", (reason,), config.metric, config.mode)
