"""The popularity penalty as the service keeps it: as the night left it, and that of an item without events for those that come by day."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nightloom.serving.items.growing import Growing

FloatArray = NDArray[np.float32]


class Penalty:
    """What is taken off final scores; see `nightloom.models.scorers.popularity_penalty`.

    Args:
        values: float32 [items].
        unseen: of an item without any event.
    """

    def __init__(self, values: FloatArray, unseen: float) -> None:
        self._values, self._unseen = Growing(values), unseen

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Self | None:
        """From the arrays of an artefact; None where it has none."""
        return cls(arrays["values"], float(arrays["unseen"][0])) if arrays else None

    @property
    def values(self) -> FloatArray:
        """float32 [items]."""
        return self._values.array

    def append(self) -> None:
        """Take an item of which nothing is known."""
        self._values.append(self._unseen)
