"""Event names as a model knows them: their codes, and which one stands for an event without a name.

Needs numpy alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nightloom.core.errors import InputError
from nightloom.core.sequences import Queries

UNNAMED = "interaction"
"""The name of all events of a table that has no column of names."""


@dataclass(frozen=True)
class EventNames:
    """The event names of a prepared folder.

    Attributes:
        known: names by code.
        default: the name that most positive events have. It stands for a missing name, and for a name that the model does not know.
        positive: bool [names], whether events of that name are positive, as far as the name decides.
        seen: bool [names], whether an item is not shown again after such an event, where seen items are left out.
    """

    known: Sequence[str]
    default: str
    positive: NDArray[np.bool_]
    seen: NDArray[np.bool_]

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> Self:
        """From `meta.json` of stage prepare; where it has no default event type, that is the first name."""
        event_types, rules = meta["event_types"], meta.get("prepare", {})
        liked = rules.get("positive_events")
        chosen = (liked, rules.get("seen_events") or liked)
        marks = (np.array([names is None or name in names for name in event_types], dtype=bool) for names in chosen)
        return cls(event_types, meta.get("default_event_type", event_types[0]), *marks)

    def codes(self, names: Sequence[str]) -> NDArray[np.int16]:
        """The code of each name, int16 [len(names)]; that of the default where the model does not know it."""
        places, default = self._places, self.default_code
        return np.array([places.get(name, default) for name in names], dtype=np.int16)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: code for code, name in enumerate(self.known)}

    @cached_property
    def default_code(self) -> int:
        """The code of the default."""
        return self._places[self.default]

    @cached_property
    def any(self) -> bool:
        """Whether the model learned from a table without names, so that an event of any name is like those it knows."""
        return list(self.known) == [UNNAMED]

    def check(self, names: Sequence[str]) -> None:
        """Refuse names that the model does not know.

        Raises:
            InputError: there are some.
        """
        unknown = [] if self.any else sorted(set(names) - set(self.known))
        if unknown:
            raise InputError(f"events: the model knows no event '{unknown[0]}'. It knows: {', '.join(self.known)}.")

    def recoded(self, queries: Queries, event_types: Sequence[str]) -> Queries:
        """Queries whose event names are coded as in `event_types`, recoded as here: each night numbers its own names."""
        return replace(queries, histories=queries.histories.recoded(self.codes(event_types)))
