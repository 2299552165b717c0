"""Event names as a model knows them: their codes, and what is taken of an event whose name is not said.

Needs numpy alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nightloom.core.errors import InputError
from nightloom.core.sequences import Queries


@dataclass(frozen=True)
class EventNames:
    """The event names of a prepared folder.

    Attributes:
        known: names by code.
        default: the name that most positive events have. It stands for a name that is not said, or that the model has never heard.
        positive: bool [names], whether events of that name are positive, as far as the name tells.
        seen: bool [names], whether an item is not shown again after such an event, where seen items are left out.
    """

    known: Sequence[str]
    default: str
    positive: NDArray[np.bool_]
    seen: NDArray[np.bool_]

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> Self:
        """As `meta.json` of stage prepare says; one from before it said more than the names takes the first for the usual one."""
        event_types, rules = meta["event_types"], meta.get("prepare", {})
        liked = rules.get("positive_events")
        chosen = (liked, rules.get("seen_events") or liked)
        marks = (np.array([names is None or name in names for name in event_types], dtype=bool) for names in chosen)
        return cls(event_types, meta.get("default_event_type", event_types[0]), *marks)

    def codes(self, names: Sequence[str]) -> NDArray[np.int16]:
        """The code of each name, int16 [len(names)]; that of the usual one where the model does not know it."""
        place = {name: code for code, name in enumerate(self.known)}
        return np.array([place.get(name, place[self.default]) for name in names], dtype=np.int16)

    def check(self, names: Sequence[str]) -> None:
        """Refuse names that the model does not know.

        Raises:
            InputError: there are some.
        """
        unknown = sorted(set(names) - set(self.known))
        if unknown:
            raise InputError(f"events: the model knows no event '{unknown[0]}'. It knows: {', '.join(self.known)}.")

    def recoded(self, queries: Queries, event_types: Sequence[str]) -> Queries:
        """Queries whose event names are coded as in `event_types`, coded as here: each night sorts and numbers the names that it has."""
        return replace(queries, histories=replace(queries.histories, event_types=self.codes(event_types)[queries.histories.event_types]))
