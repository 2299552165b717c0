"""What the membership attack found, in words that report and card share; see `nightloom.evaluation.membership`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LIMIT = 0.60
"""AUC per event up to which what ships tells little of whether an event was learned from."""
SEARCH = "search against refit"
"""The attack that needs the weights of before the refit."""


def attacked(found: Mapping[str, Any]) -> str:
    """The figures of `measure_membership` in two sentences."""
    verdict = "within" if found["shipped_events"] <= LIMIT else "above"
    said = (
        f"Whether an event was learned from: the best attack on what ships has AUC {found['shipped_events']:.3f} per event ({verdict} the "
        f"limit of {LIMIT:.2f}; .5 is chance) and {found['shipped_users']:.3f} per user."
    )
    if SEARCH in found["events"]:
        said += (
            f" With the weights of before the refit, which are not registered, it would be {found['events'][SEARCH]:.3f} and "
            f"{found['users'][SEARCH]:.3f}."
        )
    return said
