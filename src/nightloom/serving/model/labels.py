"""The label head of `nightloom.models.heads.label_head`: the probability that an item is liked (clicked, bought) once it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightloom.core.calibration import Line
from nightloom.core.sequences import Histories
from nightloom.models.heads.label_counters import LabelCounters
from nightloom.serving.model.counters import LiveCounters

EPSILON = 1e-5


class LabelHead:
    """A calibrated label head with counters that every event joins.

    Args:
        arrays: `labels.safetensors` of an artefact.
        settings: the manifest's section.
        shown: counters of all events.
        positive: counters of the positive ones.
    """

    def __init__(
        self, arrays: Mapping[str, NDArray[Any]], settings: Mapping[str, Any], shown: LiveCounters, positive: LiveCounters
    ) -> None:
        self.arrays, self.calibration = arrays, Line(*settings["calibration"])
        self.shown, self.positive = shown, positive

    def probabilities(
        self, histories: Histories, user: NDArray[np.float32], vectors: NDArray[np.float32], items: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Calibrated probabilities, float64 [items].

        Args:
            histories: one history.
            user: float32 [dim], its user vector.
            vectors: float32 [items, dim], of the items in question.
            items: int64 [items].
        """
        counters: Any = LabelCounters(self.shown, self.positive)  # type: ignore[arg-type]  # asked the same questions
        numbers = counters.of_pairs(histories, np.zeros(len(items), dtype=np.int64), items)
        own = self.arrays
        steady = (user - user.mean()) / np.sqrt(user.var() + np.float32(EPSILON))
        h = steady @ own["user"] + vectors @ own["item"] + numbers @ own["context"] + own["context_bias"]
        deep = _silu(_silu(h) @ own["hidden"] + own["hidden_bias"])
        log_odds = h @ own["direct"] + deep @ own["last"] + own["last_bias"][0]
        calibrated = self.calibration(log_odds.astype(np.float64))
        found: NDArray[np.float64] = 1 / (1 + np.exp(-calibrated))
        return found


def _silu(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return x / (1 + np.exp(-x))
