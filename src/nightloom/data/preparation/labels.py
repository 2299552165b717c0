"""Labels: which events are positive."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nightloom.core.errors import InputError

if TYPE_CHECKING:
    from nightloom.config import PrepareConfig


def is_positive(events: pd.DataFrame, config: PrepareConfig) -> NDArray[np.bool_]:
    """Whether each event is a positive label: a positive event name and, where `positive_min_value` is set, a large enough value.

    An event without a value is then not positive. It may be that no event is.

    Returns:
        bool [len(events)].

    Raises:
        InputError: `positive_min_value` needs a `value` column that is not there.
    """
    chosen = np.ones(len(events), dtype=bool)
    if config.positive_events is not None:
        chosen &= events["event"].isin(config.positive_events).to_numpy()
    if config.positive_min_value is not None:
        if "value" not in events:
            raise InputError(
                "events: prepare.positive_min_value is set, but there is no `value` column. "
                "Map one in data.columns.events, or leave positive_min_value empty."
            )
        chosen &= events["value"].to_numpy(dtype=np.float64, na_value=np.nan) >= config.positive_min_value
    return chosen


def seen(events: pd.DataFrame, config: PrepareConfig) -> NDArray[np.bool_]:
    """Whether each event marks its item as seen, so that it is not recommended again (a purchase does, a view need not).

    Returns:
        bool [len(events)].
    """
    names = config.seen_events or config.positive_events
    return np.ones(len(events), dtype=bool) if names is None else events["event"].isin(names).to_numpy()


def positive(events: pd.DataFrame, config: PrepareConfig) -> NDArray[np.bool_]:
    """As `is_positive`, for training events: at least one must be positive.

    Returns:
        bool [len(events)].

    Raises:
        InputError: `positive_min_value` needs a `value` column that is not there, or no event is positive.
    """
    chosen = is_positive(events, config)
    if not chosen.any():
        seen = ", ".join(str(name) for name in events["event"].value_counts().index[:10]) or "none"
        raise InputError(
            f"events: none of {len(events):,} events is positive under prepare.positive_events={config.positive_events} and "
            f"prepare.positive_min_value={config.positive_min_value}; event names there are: {seen}. Change these keys."
        )
    return chosen
