"""What counts as a large catalogue, set down to nothing, so that small ones take its path."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

PLACES = {
    "FROM_ROWS": ["training.trainer"],
    "ROWS": ["training.shared_vectors", "training.run", "models.sequential.recommender"],
    "EXACT": ["models.scorers.text_neighbours", "models.scorers.newcomers", "models.scorers.registry"],
    "FROM_ITEMS": ["models.sequential.recommender", "training.fusion_weights", "training.reranking", "training.validation"],
    "MANY_ITEMS": ["models.scorers.sparse"],
    "MANY_ROWS": ["models.scorers.als"],
}


def make_small(set_: Callable[[Any, str, int], None] = setattr) -> None:
    """Set all thresholds to 1, by `setattr` or a monkeypatch's."""
    for name, modules in PLACES.items():
        for module in modules:
            place = import_module(f"nightloom.{module}")
            assert hasattr(place, name), f"{module} has no {name} any more"
            set_(place, name, 1)
