"""Plots of figures at the edge."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nightloom.evaluation import plots


def test_an_interval_that_misses_its_mean_by_a_rounding_error_is_drawn(tmp_path: Path) -> None:
    """Every query is a hit: the mean is 1, and the mean of users' parts a rounding error below."""
    below = float(np.nextafter(1, 0))
    metrics = {"nightloom": dict.fromkeys(plots.SHOWN, 1.0), "graph": dict.fromkeys(plots.SHOWN, 0.5)}
    intervals = {"nightloom": dict.fromkeys(plots.SHOWN, (below, below)), "graph": dict.fromkeys(plots.SHOWN, (0.4, 0.6))}
    plots.models(tmp_path / "models.png", metrics, intervals, "nightloom", "All are hits")
    assert (tmp_path / "models.png").read_bytes().startswith(b"\x89PNG")
