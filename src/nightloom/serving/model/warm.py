"""Before an artefact serves: that it answers as its bundle does, and that all kernels are compiled.

    python -m nightloom.serving.model.warm FOLDER

Compiling takes half a minute of one core once for an installation; numba keeps the code (see `nightloom.serving.model.jit`). Promotion does
this, so that a service starts in a second.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from nightloom.core.errors import NightloomError
from nightloom.core.queries import Query
from nightloom.serving.items.new_items import NewItem
from nightloom.serving.model.artefact import Artefact
from nightloom.serving.model.engine import Engine
from nightloom.serving.reasons.reasons import reasons
from nightloom.serving.search.search import near

CLOSE = 1e-4
"""Scores of the engine and of the bundle, its weights rounded as the artefact keeps them, differ by no more in float32."""
ALIKE = 0.8
"""Share of a probe's items that multiplying in int8 leaves among the first, where it may change the order."""


def check(engine: Engine) -> None:
    """Ask an engine that has learned nothing yet the artefact's probes.

    Raises:
        NightloomError: it does not answer as the bundle does.
    """
    for number, probe in enumerate(engine.artefact.probes):
        wanted = dict(zip(probe["items"], probe["scores"], strict=True))
        query = Query(**{name: value for name, value in probe.items() if name not in ("items", "scores")})
        items, scores = engine.recommend(query, len(wanted))
        last = min(wanted.values(), default=0.0)  # an item that ties with the last one may stand for it
        ids = [engine.item_ids[item] for item in items.tolist()]
        apart = max((abs(score - wanted.get(one, last)) for one, score in zip(ids, scores.tolist(), strict=True)), default=0.0)
        kept = len(wanted.keys() & set(ids))
        wrong = kept < ALIKE * len(wanted) if engine.rounds else apart > CLOSE
        if len(items) != len(wanted) or wrong:
            raise NightloomError(
                f"{engine.artefact.folder}: probe {number} ({len(query.history)} events) is answered otherwise than by the bundle: "
                f"{len(items)} of {len(wanted)} items, {kept} of them the same, scores {apart:.2g} apart. Make the artefact anew with this "
                "installation's Nightloom."
            )


def warm(folder: Path) -> None:
    """Check an artefact, and call everything that an engine does once, on an engine of its own.

    Raises:
        InputError: the folder is no artefact, or it is damaged.
        NightloomError: the engine does not answer as the bundle does.
    """
    artefact = Artefact.open(folder)
    engine = Engine(artefact)
    check(engine)
    if engine.rounds:
        check(Engine(artefact, arithmetic="float32"))
    item, moment = engine.item_ids[0], engine.clock.latest or 1
    query = Query([item], [moment] if engine.clock.has_time else None)
    for allowed in (None, np.ones(engine.catalogue.trained, dtype=np.bool_)):
        engine.recommend(replace(query, friends=[[item]]), 5, allowed=allowed)
    engine.recommend(query, 5, candidates=np.arange(min(5, engine.catalogue.trained)))
    engine.recommend_user("", 5)
    for other in engine.item_ids[: engine.net.near_bias.shape[1] + 2]:
        engine.apply("", other, 0, moment, positive=True)
    engine.recommend_user("", 5)
    engine.retract("", item, 0, moment)
    engine.put_item(NewItem("", {}))
    engine.put_item(NewItem(" ", {}, np.ones(engine.text_dim, dtype=np.float32)))
    engine.similar([0], 5)
    near(np.zeros((1, 8), np.int8), np.ones(1, np.float32), np.ones(8, np.float32), np.empty(1, np.float32))
    reasons(engine.coalitions(query), np.arange(1), engine.estimator, np.zeros(0, dtype=np.int32))
    if engine.labelled:
        engine.label_probabilities(query, np.arange(1))


if __name__ == "__main__":
    try:
        warm(Path(sys.argv[1]))
    except NightloomError as error:
        sys.exit(str(error))
