"""A night of a day that is past: it knows the events before that day, and changes nothing that serves.

Its folder is `mlruns/nights/<name>/as-of-<day>-<night>`, beside those of real nights. `latest` does not move, so no real night is compared
with it; what trims, pools or watches nights does not count it.
"""

from __future__ import annotations

from datetime import UTC, date, datetime

from nightloom.config import RunConfig
from nightloom.core.errors import InputError

FOLDER = "as-of-"
"""How the folder's name begins."""
TAG = "nightloom.as_of"
"""Tag of its run in MLflow: the day."""


def as_of_that_day(config: RunConfig, day: date, today: date | None = None) -> RunConfig:
    """The config of a night that begins with a day, 00:00 UTC: later events are left out, and nothing is registered.

    Args:
        config: of the recommender.
        day: which.
        today: the day that is not past yet; None for now, UTC.

    Raises:
        InputError: the day is still to come, or the config's own events begin later.
    """
    today = today or datetime.now(UTC).date()
    if day > today:
        raise InputError(f"--as-of {day}: that day has not begun (today is {today}, UTC). A backfill is of a day that is past.")
    only = config.data.event_filter
    if only.since and only.since >= day:
        raise InputError(f"--as-of {day}: data.event_filter.since is {only.since}, so no event is left before that day.")
    before = min(day, only.before) if only.before else day
    data = config.data.model_copy(update={"event_filter": only.model_copy(update={"before": before})})
    promotion = config.promotion.model_copy(update={"mode": "disabled"})
    return config.model_copy(update={"data": data, "promotion": promotion})
