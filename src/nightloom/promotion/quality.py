"""What a registered version's tags say of its quality, written when it is promoted and read by `nightloom versions`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

METRIC_TAG, QUALITY_TAG, REASON_TAG = "nightloom.metric", "nightloom.quality", "nightloom.reason"


@dataclass(frozen=True)
class Quality:
    """What is known of a version; empty texts where it was registered before this was kept.

    Attributes:
        metric: that which decided.
        value: of that metric on the held-out users of its night.
        reason: the first reason for which it was promoted.
    """

    metric: str
    value: str
    reason: str


def quality_tags(decision: Mapping[str, Any]) -> dict[str, str]:
    """The tags of a version that the gate lets pass.

    Args:
        decision: the gate's `Decision` as a dict.
    """
    reason = next(iter(decision["reasons"]), "")
    return {METRIC_TAG: decision["metric"], QUALITY_TAG: f"{decision['challenger']:.4f}", REASON_TAG: reason}


def quality_of(tags: Mapping[str, str]) -> Quality:
    """What a version's tags say."""
    return Quality(tags.get(METRIC_TAG, ""), tags.get(QUALITY_TAG, ""), tags.get(REASON_TAG, ""))


def age(created: datetime, now: datetime | None = None) -> str:
    """How long ago a version was registered: `5 min`, `3 h`, `12 days`.

    Args:
        created: when, UTC.
        now: the time to count from; by default that of the clock.
    """
    minutes = max(0, int(((now or datetime.now(UTC)) - created).total_seconds() // 60))
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h"
    return f"{minutes // (24 * 60)} days"
