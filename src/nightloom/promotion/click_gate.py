"""The gate of a click head: pure functions from probabilities of the same test rows to a decision with its reasons.

As in `promotion.gate` a challenger need not be better than what serves. It must be shown not to be worse by more than a margin. What
counts is log-loss, of which less is better: a probability that is used as a price has to be true, not only to order rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from nightloom.core.click_metrics import BoolArray, FloatArray, intervals, losses

if TYPE_CHECKING:
    from nightloom.config import PromotionConfig


@dataclass(frozen=True)
class Against:
    """The challenger's log-loss less that of something else on the same rows.

    Attributes:
        name: the champion or a baseline.
        other: log-loss of the other.
        difference: below zero the challenger is better.
        low: lower end of its interval.
        high: upper end.
        most: what `high` may be at most.
        passed: whether it is.
    """

    name: str
    other: float
    difference: float
    low: float
    high: float
    most: float
    passed: bool


@dataclass(frozen=True)
class ClickDecision:
    """What the gate decides, and why.

    Attributes:
        decision: promote or reject. The caller acts on it as `mode` says.
        reasons: plain English, with figures; those against promotion come first.
        mode: enabled, review, dry_run or disabled, from the config.
        rows: test rows that the decision rests on.
        clicks: those of them that were clicked.
        challenger: its log-loss.
        against: the champion, or where there is none every baseline.
    """

    decision: Literal["promote", "reject"]
    reasons: tuple[str, ...]
    mode: str
    rows: int
    clicks: int
    challenger: float
    against: tuple[Against, ...]


def decide(
    clicked: BoolArray,
    challenger: FloatArray,
    champion: FloatArray | None,
    baselines: Mapping[str, FloatArray],
    config: PromotionConfig,
) -> ClickDecision:
    """Decide whether a click head may become champion.

    The whole interval of the difference in log-loss (paired bootstrap over rows) must lie at or below `margin` times the log-loss of the
    champion; without a champion, of every baseline, unless `must_beat_baselines` is off. One of them should be the usual click rate as
    everybody's probability: where nothing can be learnt, models that are all worse than that are no baseline.

    Args:
        clicked: bool [rows], what happened.
        challenger: float64 [rows], its probabilities.
        champion: float64 [rows], those of the standing champion; None where there is none.
        baselines: family -> float64 [rows].
        config: the gate's settings.
    """
    held = {"the champion": champion} if champion is not None else dict(baselines)
    compared = tuple(_against(name, clicked, challenger, probabilities, config) for name, probabilities in held.items())
    guards = champion is not None or config.must_beat_baselines
    failed = [one for one in compared if guards and not one.passed]
    reasons = [f"It may be worse than the margin allows: {_in_words(one, config)}" for one in failed]
    own = float(losses(clicked, challenger).mean())
    if champion is None:
        reasons.append(f"No champion stands. The challenger's log-loss is {own:.4f} on {len(clicked):,} test rows.")
        if not held:
            reasons.append("No baseline was fitted, so nothing had to be matched.")
    reasons += [f"Not inferior: {_in_words(one, config)}" for one in compared if one.passed]
    reasons += [f"Does not count (must_beat_baselines is off): {_in_words(one, config)}" for one in compared if not (guards or one.passed)]
    decision: Literal["promote", "reject"] = "reject" if failed else "promote"
    return ClickDecision(decision, tuple(reasons), config.mode, len(clicked), int(clicked.sum()), own, compared)


def _against(name: str, clicked: BoolArray, mine: FloatArray, its: FloatArray, config: PromotionConfig) -> Against:
    own, other = (float(losses(clicked, probabilities).mean()) for probabilities in (mine, its))
    low, high = intervals(clicked, mine, its, confidence=config.confidence, resamples=config.resamples)["log_loss"]
    most = config.margin * other
    return Against(name, other, own - other, low, high, most, high <= most)


def _in_words(one: Against, config: PromotionConfig) -> str:
    return (
        f"log-loss less that of {one.name} ({one.other:.4f}) is {one.difference:+.4f}, {config.confidence:.0%} interval {one.low:+.4f} to "
        f"{one.high:+.4f}, and its upper end may be {one.most:+.4f} ({config.margin:.1%})."
    )
