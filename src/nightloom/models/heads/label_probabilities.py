"""Calibration of the label head: a line fitted on validation, and counters of the events that are known at the time of a query."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from nightloom.core.calibration import Line
from nightloom.models.heads.label_counters import LabelCounters

FILE = "label.json"


@dataclass(frozen=True)
class LabelProbabilities:
    """Calibration and counters of a label head, whose weights are the network's.

    Attributes:
        calibration: from the head's log-odds to calibrated ones (Platt 1999).
        counters: of all known events.
    """

    calibration: Line
    counters: LabelCounters

    def __call__(self, log_odds: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probabilities, float64 of the shape of the log-odds."""
        calibrated: NDArray[np.float64] = self.calibration(log_odds.astype(np.float64))
        return 1 / (1 + np.exp(-calibrated))

    def reindex(self, rows: NDArray[np.int64], n_items: int) -> LabelProbabilities:
        """The same over another catalogue; see `Scorer.reindex`."""
        return LabelProbabilities(self.calibration, self.counters.reindex(rows, n_items))

    def save(self, folder: Path) -> None:
        """Write `label.json` and the counters."""
        settings = {"calibration": [self.calibration.slope, self.calibration.offset]}
        (folder / FILE).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        self.counters.save(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        settings = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return cls(Line(*settings["calibration"]), LabelCounters.load(folder))
