"""What was asked in a test, in words that gate, report and card share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nightloom.core.streaming import MOST_OF_A_USER


def asked(users: int, queries: int) -> str:
    """What means are over: `301 held-out users`, or `12,345 events of 301 users` where a user has several queries."""
    return f"{users:,} held-out users" if queries in (0, users) else f"{queries:,} events of {users:,} users"


def told(figures: Mapping[str, Any]) -> str:
    """How many were asked and how many of them had no history, in a sentence, and another where long users were sampled.

    Args:
        figures: of one protocol, as `nightloom.evaluation.held_out.HeldOut.figures` gives them.
    """
    users, queries, strangers = figures["test_users"], figures["test_queries"], figures["without_history"]["queries"]
    who = f"{users:,} users were asked" if queries == users else f"{queries:,} events of {users:,} users were asked about"
    said = f"{who}, {strangers:,} of them without any history."
    if figures["sampled_from"]:
        said += f" They are drawn from {figures['sampled_from']:,} events, at most {MOST_OF_A_USER} of a user."
    return said
