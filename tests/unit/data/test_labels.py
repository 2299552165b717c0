from __future__ import annotations

import pandas as pd
import pytest

from nightloom.config import PrepareConfig
from nightloom.core.errors import InputError
from nightloom.data.preparation.labels import positive

EVENTS = pd.DataFrame({"event": ["view", "rating", "rating", "rating"], "value": [None, 5.0, 2.0, None]})


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (PrepareConfig(), [True, True, True, True]),
        (PrepareConfig(positive_events=("rating",)), [False, True, True, True]),
        (PrepareConfig(positive_min_value=4), [False, True, False, False]),
        (PrepareConfig(positive_events=("rating", "view"), positive_min_value=2), [False, True, True, False]),
    ],
)
def test_positive_needs_name_and_value(config: PrepareConfig, expected: list[bool]) -> None:
    assert positive(EVENTS, config).tolist() == expected


def test_no_positive_event_names_the_events_there_are() -> None:
    with pytest.raises(InputError, match=r"none of 4 events is positive.*rating, view"):
        positive(EVENTS, PrepareConfig(positive_events=("purchase",)))


def test_a_smallest_value_needs_the_column() -> None:
    with pytest.raises(InputError, match="no `value` column"):
        positive(EVENTS[["event"]], PrepareConfig(positive_min_value=1))
