"""Labels: which events are positive."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nightloom.core.errors import InputError
from nightloom.core.yaml_words import scalar
from nightloom.data.tables.coded import spelt_column

if TYPE_CHECKING:
    from nightloom.config import PrepareConfig


def check_names(there: pd.Series, config: PrepareConfig) -> None:
    """Refuse event names in the config that no event has: what they say would have no effect, and nobody would notice.

    Args:
        there: rows of each event name, the most frequent first, before any event is removed.
        config: `positive_events` and `seen_events` count.

    Raises:
        InputError: a name is not among the events' names; says which are near.
    """
    names = set(there.index)
    for key in ("positive_events", "seen_events"):
        said = getattr(config, key) or ()
        unknown = [name for name in said if name not in names]
        if not unknown:
            continue
        lower = {str(name).strip().casefold(): str(name) for name in reversed(there.index.tolist())}
        near = {name: found[0] for name in unknown if (found := difflib.get_close_matches(name.strip().casefold(), lower, n=1))}
        hints = "".join(f" Did you mean {lower[found]!r}?" for found in near.values())
        mended = dict.fromkeys(lower[near[name]] if name in near else name for name in said if name in there.index or name in near)
        remedy = f"Write prepare.{key}: [{', '.join(map(scalar, mended))}]" if mended else f"Correct prepare.{key}, or leave it out"
        listed = ", ".join(f"{name!r} ({count:,})" for name, count in there.head(20).items())
        raise InputError(
            f"events: prepare.{key} names {', '.join(map(repr, unknown))}, and none of {there.sum():,} events is named so. "
            f"There are: {listed}.{hints} {remedy}."
        )


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
        raise none_positive(spelt_column(events["event"]).value_counts(), config)
    return chosen


def none_positive(there: pd.Series, config: PrepareConfig) -> InputError:
    """What is wrong where no event is positive; `there` has the rows of each event name, the most frequent first."""
    seen = ", ".join(str(name) for name in there.index[:10]) or "none"
    return InputError(
        f"events: none of {there.sum():,} events is positive under prepare.positive_events={config.positive_events} and "
        f"prepare.positive_min_value={config.positive_min_value}; event names there are: {seen}. Change these keys."
    )
