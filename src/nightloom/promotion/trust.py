"""Limits besides quality that the gate checks: gaps between groups of people, what lists show of the tail, whether reasons hold.

Each stands against promotion only where chance can not have made it: its interval lies beyond the limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from nightloom.evaluation.fairness import HISTORY
from nightloom.evaluation.statistics import paired
from nightloom.promotion.gate import Decision

if TYPE_CHECKING:
    from nightloom.config import PromotionConfig

FIDELITY = "cdcg"
"""The measure of reasons that decides; lower is better."""
FEWEST = 6
"""Users on whom nothing is said of fidelity."""


@dataclass(frozen=True)
class Limit:
    """One limit that was checked.

    Attributes:
        name: what is limited.
        value: what was found.
        low: lower end of its interval.
        high: upper end.
        limit: as the config has it.
        passed: whether nothing stands against promotion.
        said: in a sentence.
    """

    name: str
    value: float
    low: float
    high: float
    limit: float
    passed: bool
    said: str


def with_trust(decision: Decision, limits: Sequence[Limit], notes: Sequence[str] = ()) -> Decision:
    """The decision with the limits that were checked; one that does not hold rejects, and comes first among the reasons.

    Args:
        decision: what `nightloom.promotion.gate.decide` found.
        limits: what was checked.
        notes: what could not be, in sentences.
    """
    against = [one for one in limits if not one.passed]
    return replace(
        decision,
        decision="reject" if against else decision.decision,
        reasons=(*(one.said for one in against), *decision.reasons, *(one.said for one in limits if one.passed), *notes),
        guards=(*decision.guards, *(one.name for one in against)),
        limits=tuple(limits),
        moves_anchor=decision.moves_anchor and not against,
    )


def group_limits(gaps: Sequence[Mapping[str, Any]], metrics: Mapping[str, float], config: PromotionConfig) -> list[Limit]:
    """Whether a gap between two groups of people is surely too large; those with and without a history are no such groups.

    Args:
        gaps: as `nightloom.evaluation.fairness.group_gaps` gives them.
        metrics: of the model, means over all queries.
        config: the gate's settings.
    """
    mean = metrics.get(config.metric, 0.0)
    if config.max_group_gap is None or mean <= 0:
        return []
    found = []
    for one in gaps:
        if one["attribute"] == HISTORY:
            continue
        value, low, high, sure = (one[name] / mean for name in ("gap", "low", "high", "sure"))
        passed = sure <= config.max_group_gap
        between = f"{config.metric} of {one['attribute']} {one['best']} is {value:.0%} of the mean above that of {one['worst']}"
        verdict = "surely above" if not passed else "not surely above"
        said = f"{between}, {verdict} the limit of {config.max_group_gap:.0%} (interval {low:.0%} to {high:.0%})."
        found.append(Limit(f"gap of {one['attribute']}", value, low, high, config.max_group_gap, passed, said))
    return found


def tail_limits(tail: Mapping[str, float], config: PromotionConfig) -> list[Limit]:
    """Whether lists surely show too little of the tail.

    Args:
        tail: `value`, `low` and `high` of the mean share of tail items in lists; empty where there are no lists.
        config: the gate's settings.
    """
    if config.min_tail_share is None or not tail:
        return []
    passed = tail["high"] >= config.min_tail_share
    verdict = "not surely below" if passed else "surely below"
    said = (
        f"Lists hold {tail['value']:.1%} tail items, {verdict} the limit of {config.min_tail_share:.1%} "
        f"(interval {tail['low']:.1%} to {tail['high']:.1%})."
    )
    return [Limit("tail share", tail["value"], tail["low"], tail["high"], config.min_tail_share, passed, said)]


def reasons_compared(challenger: pd.DataFrame, champion: pd.DataFrame, config: PromotionConfig) -> tuple[list[Limit], tuple[str, ...]]:
    """The limit on how much less reasons may hold than the champion's, or a sentence that says why nothing was compared.

    Args:
        challenger: as in `fidelity_limits`.
        champion: likewise.
        config: the gate's settings.
    """
    if config.fidelity_margin is None:
        return [], ()
    found = fidelity_limits(challenger, champion, config)
    if found:
        return found, ()
    if not len(challenger):
        why = "tonight's were measured for nobody (explain.fidelity_users)"
    elif not len(champion):
        why = "the champion's could be measured for nobody, or its serving artefact could not be opened"
    else:
        why = f"fewer than {FEWEST} of {len(challenger):,} users have a recommendation by both"
    return [], (f"Reasons were not compared with the champion's: {why}.",)


def fidelity_limits(challenger: pd.DataFrame, champion: pd.DataFrame, config: PromotionConfig) -> list[Limit]:
    """Whether the reasons of the challenger surely hold less than the champion's.

    Args:
        challenger: `user_id` and the measures of `nightloom.explain.fidelity.measures`, one row a user.
        champion: the same; users whom only one has are left out.
        config: the gate's settings.
    """
    if config.fidelity_margin is None:
        return []
    both = challenger.merge(champion, on="user_id", suffixes=("", "_champion")).sort_values("user_id")
    if len(both) < FEWEST:
        return []
    mine, its = ({FIDELITY: both[f"{FIDELITY}{end}"].to_numpy(dtype=float)} for end in ("", "_champion"))
    found = paired(mine, its, confidence=config.confidence, resamples=config.resamples)[FIDELITY]
    passed = found.low <= config.fidelity_margin
    verdict = "hold no less than the champion's beyond the margin" if passed else "hold less than the champion's"
    said = (
        f"Reasons {verdict}: without the events that they name, CDCG is {found.a:.3f} against {found.b:.3f} on the same "
        f"{found.users:,} users, difference {found.difference:+.3f}, interval {found.low:+.3f} to {found.high:+.3f}, margin "
        f"{config.fidelity_margin:+.3f}."
    )
    return [Limit("fidelity of reasons", found.difference, found.low, found.high, config.fidelity_margin, passed, said)]
