"""What the experiments can be asked for: names and limits, light enough to refuse a typo before anything else is imported."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, get_args

from nightloom.config import BaselineName
from nightloom.core.errors import InputError

VARIANTS: dict[str, dict[str, Any]] = {
    "text_only": {"use_ids": False, "use_attributes": False, "use_images": False, "scorers": []},
    "id_only": {"use_text": False, "use_attributes": False, "use_images": False, "scorers": []},
    "nightloom": {},
}
"""The full model and what is switched off in it, as overrides of the config's `model`; they are trained by `fine_tune`."""

EVERY = (*get_args(BaselineName), *VARIANTS)
"""All models that can be compared side by side."""


def check_nights(nights: int, step_days: float, at_once: int = 1) -> None:
    """Refuse a replay without a night, before anything is read.

    Raises:
        InputError: `nights` or `at_once` is below 1, or `step_days` not above 0.
    """
    if nights < 1:
        raise InputError(f"--nights {nights}: nothing is lived again then. Give at least 1.")
    if at_once < 1:
        raise InputError(f"--at-once {at_once}: nothing is trained then. Give at least 1.")
    if not 0 < step_days < math.inf:
        raise InputError(f"--step-days {step_days:g}: the nights would not follow one another. Give a number of days above 0.")


def checked_shares(shares: Sequence[float]) -> list[float]:
    """Shares of the target's users, ascending, each once.

    Raises:
        InputError: one is not above 0 and at most 1.
    """
    for share in shares:
        if not 0 < share <= 1:
            raise InputError(f"--shares: {share:g} is not a share of the users. Name numbers above 0 and up to 1, such as 0.01 0.1 1.")
    return sorted(set(shares))
