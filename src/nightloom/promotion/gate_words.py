"""What the gate says: its reasons in plain English, with figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nightloom.core.asked import asked
from nightloom.promotion.comparison import LOW_POWER, Comparison

if TYPE_CHECKING:
    from nightloom.config import PromotionConfig

HALF = 0.5
"""A rival that knows a smaller share of the catalogue is pointed out."""
FEWEST_USERS = 6
"""Fewer users than this decide nothing: even if all of them agreed, that could be chance at a confidence of 95 % (a sign test)."""
FEW_USERS = 30
"""Below this many users the decision says that its interval is rough."""


def too_few(users: int) -> list[str]:
    """Why users who are too few stand against promotion."""
    if users >= FEWEST_USERS:
        return []
    return [
        f"Only {users:,} held-out user{'s' if users > 1 else ''} can be judged by, and fewer than {FEWEST_USERS} say nothing: even if all "
        "agreed, that could be chance. Give more events, or a larger prepare.test_share."
    ]


def margins(whole: Comparison, anchor: Comparison | None, config: PromotionConfig) -> list[str]:
    """Why champion or anchor stand against it."""
    said = []
    if not whole.passed:
        said.append(
            f"The challenger may be worse than the margin allows: the interval's lower end {whole.low:+.4f} is below "
            f"{-config.margin * whole.other:+.4f} ({config.margin:.1%} of the champion's {whole.other:.4f})."
        )
    if anchor is not None and not anchor.passed:
        said.append(
            f"Losses would add up: against the best model of before ({anchor.challenger:.4f} against {anchor.other:.4f}) the interval's "
            f"lower end {anchor.low:+.4f} is below {-config.anchor_margin * anchor.other:+.4f} ({config.anchor_margin:.1%})."
        )
    return said


def told(whole: Comparison, anchor: Comparison | None, slices: Sequence[Comparison], config: PromotionConfig) -> list[str]:
    """What was found besides."""
    relative = "" if whole.relative is None else f" ({whole.relative:+.1%})"
    said = [
        f"{config.metric} {whole.challenger:.4f} against {whole.other:.4f} of the champion on the same "
        f"{asked(whole.users, whole.queries)}: difference {whole.difference:+.4f}{relative}, {config.confidence:.0%} interval "
        f"{whole.low:+.4f} to {whole.high:+.4f}."
    ]
    if whole.passed:
        said.append(
            f"The challenger is not inferior: the interval's lower end {whole.low:+.4f} is not below "
            f"{-config.margin * whole.other:+.4f} ({config.margin:.1%} of the champion's {whole.other:.4f})."
        )
    if whole.low > 0:
        said.append("It is superior: the whole interval is above zero.")
    if anchor is not None and anchor.passed:
        said.append(
            f"Losses have not added up: against the best model of before the difference is {anchor.difference:+.4f}, "
            f"interval {anchor.low:+.4f} to {anchor.high:+.4f}."
        )
    if all(one.passed for one in slices):
        guarding = sum(one.guards for one in slices)
        said.append(
            f"No slice stands against it ({guarding} of {len(slices)} slices guard: at least {config.min_slice_users:,} users, or few "
            "that would show a loss of a fifth)."
        )
    return said


def slice_lost(one: Comparison, config: PromotionConfig) -> str:
    """Why a slice stands against it."""
    size = asked(one.users, one.queries).replace("held-out ", "")
    return (
        f"Slice '{one.name}' ({size}) lost {-(one.relative or 0):.1%} ({one.challenger:.4f} against {one.other:.4f}), "
        f"more than the {config.slice_margin:.0%} allowed, and that is significant (interval {one.low:+.4f} to {one.high:+.4f})."
    )


def baseline_lost(one: Comparison, config: PromotionConfig) -> str:
    """Why a baseline stands against it, where there is a champion."""
    return (
        f"Baseline '{one.name}' is better: {one.challenger:.4f} against {one.other:.4f}, difference {one.difference:+.4f}, beyond the "
        f"margin of {config.margin:.1%}, and that is significant (interval {one.low:+.4f} to {one.high:+.4f})."
    )


def not_matched(one: Comparison, config: PromotionConfig) -> str:
    """Why a baseline stands against a first champion."""
    return (
        f"Baseline '{one.name}' is not matched: {one.challenger:.4f} against {one.other:.4f}, difference {one.difference:+.4f}, whose "
        f"interval's lower end {one.low:+.4f} is below {-config.margin * one.other:+.4f} ({config.margin:.1%} of the baseline)."
    )


def first(mean: float, users: int, queries: int, compared: Sequence[Comparison], config: PromotionConfig) -> list[str]:
    """What was found where no champion stands."""
    said = [f"No champion stands. The challenger's {config.metric} is {mean:.4f} on {asked(users, queries)}."]
    best = max(compared, key=lambda one: one.other, default=None)
    if best is None:
        said.append("No baseline was measured, so nothing had to be matched.")
    elif not config.must_beat_baselines:
        said.append(f"Baselines do not count (must_beat_baselines is off); the best is '{best.name}' with {best.other:.4f}.")
    elif all(one.passed for one in compared):
        said.append(
            f"Every baseline is matched within the margin; the best is '{best.name}' with {best.other:.4f}: difference "
            f"{best.difference:+.4f}, {config.confidence:.0%} interval {best.low:+.4f} to {best.high:+.4f}."
        )
    return said


def limits(name: str, figures: Mapping[str, Any]) -> list[str]:
    """What limits the comparison with a registered model; `figures` as `nightloom.evaluation.rivals.Rival.figures` gives them."""
    said = []
    if figures["learned_share"]:
        share = f"{figures['learned_share']:.0%}"
        said.append(
            f"The {name} may have learned from {share} of tonight's held-out events, which were left out of the comparison with it. "
            "A smaller prepare.test_share begins the test after the end of its training."
        )
    if figures["knows_share"] < HALF:
        said.append(
            f"The {name} knows {figures['knows_share']:.0%} of tonight's catalogue: it ranks the other items by text and attributes alone."
        )
    return [*said, f"The {name}: {figures['note']}"] if figures["note"] else said


def warnings(users: int, all_users: int, whole: Comparison | None = None) -> list[str]:
    """What limits the decision: users left out, few users, little power."""
    said = []
    if users < all_users:
        left_out = f"{all_users - users:,} of the challenger's {all_users:,} held-out users"
        said.append(f"{left_out} have no lists of the champion and are left out.")
    if users < FEW_USERS:
        said.append(f"With only {users:,} held-out users the interval is rough.")
    if whole is None or whole.smallest_loss is None:
        return said
    if whole.nights > 1:
        said.append(f"Tonight's users alone can not tell, so those of the last {whole.nights} nights with this champion are pooled.")
    said.append(
        f"With these users a loss of {whole.smallest_loss:.1%} or more shows. "
        f"An equal model passes with probability {whole.equal_passes:.0%}."
    )
    if whole.equal_passes < LOW_POWER:
        said.append(
            "That is little: more held-out users (prepare.test_share) or a wider promotion.margin would let equal models pass more often."
        )
    return said
