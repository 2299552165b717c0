"""Every baseline, by its name in configs and results: the recommenders that `fit` alone trains.

The full model and its text-only and id-only variants are trained by `nightloom.training` and are not here.
"""

from __future__ import annotations

import inspect
from importlib import import_module

from nightloom.core.errors import InputError
from nightloom.core.recommender import Recommender

_CLASSES = {
    "popularity": "scorers.popularity:Popularity",
    "popularity_recent": "baselines.popularity_recent:PopularityRecent",
    "item_knn": "baselines.item_knn:ItemKNN",
    "session_knn": "baselines.session_knn:SessionKNN",
    "user_knn": "baselines.user_knn:UserKNN",
    "als": "scorers.als:ALS",
    "bpr": "baselines.bpr:BPR",
    "ease": "baselines.ease:EASE",
    "graph": "scorers.graph:TransitionGraph",
    "word2vec": "baselines.word2vec:ItemWord2Vec",
    "mlp": "baselines.mlp:MLP",
    "gru": "baselines.gru:GRU",
}
"""Name -> module and class; a new baseline is one more line. Modules are imported when first used, as some take seconds."""

NAMES = tuple(_CLASSES)
"""All names, simple ones first."""


def family_class(name: str) -> type[Recommender]:
    """The class of a family.

    Raises:
        InputError: no family has that name.
    """
    if name not in _CLASSES:
        raise InputError(f"no family is named '{name}'. There are: {', '.join(NAMES)}")
    module, cls = _CLASSES[name].split(":")
    found: type[Recommender] = getattr(import_module(f"nightloom.models.{module}"), cls)
    return found


def build(name: str, seed: int | None = None) -> Recommender:
    """An unfitted family with its defaults.

    Args:
        name: one of `NAMES`.
        seed: taken by those that are random; None for their own.
    """
    cls = family_class(name)
    seeded = seed is not None and "seed" in inspect.signature(cls).parameters
    return cls(**{"seed": seed}) if seeded else cls()
