"""Reasons over many recommendations, for shap's plots: fields and events, users with short and long histories, the re-ranker, words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nightloom.core.fonts import drawable, with_fonts
from nightloom.core.sequences import Histories
from nightloom.explain import shap_plots
from nightloom.explain.games import field_game, field_players
from nightloom.explain.reranker_features import draw_reranker, explain_reranker
from nightloom.explain.shapley import shapley
from nightloom.explain.title_tokens import draw_text, encoder_of, explain_text, has_words
from nightloom.packaging.bundle import Bundle
from nightloom.serving.model.engine import Engine
from nightloom.serving.reasons.attribution import Estimator, history_contributions

if TYPE_CHECKING:
    from nightloom.explain.explain import Explanation

SAMPLES = 64
"""Model evaluations of the fields of a recommendation that is only a dot of a plot: all coalitions of 6."""
READ = 2
"""Items of whose texts the words are told apart."""
FEWEST = 5
"""Recommendations of a segment, at least, for a bar of its own."""
Row = tuple[float, Mapping[str, float]]
"""A game: the worth of nobody, and player -> value."""


@dataclass(frozen=True)
class Overview:
    """Games of many first recommendations.

    Attributes:
        fields: of the items' fields.
        events: of the histories' events by position, 1 the latest.
        lengths: events of each history.
    """

    fields: Sequence[Row]
    events: Sequence[Row]
    lengths: Sequence[int]

    def __add__(self, other: Overview) -> Overview:
        return Overview([*self.fields, *other.fields], [*self.events, *other.events], [*self.lengths, *other.lengths])


def overview_of(found: Sequence[Explanation], lengths: Sequence[int]) -> Overview:
    """That of recommendations that were explained closely."""
    fields = [(one.fields.none, {reason.player: reason.value for reason in one.of("field")}) for one in found]
    events = [(one.events.none, {str(reason.position): reason.value for reason in one.of("event") if reason.position}) for one in found]
    return Overview(fields, events, lengths)


def overview(
    model: Bundle, engine: Engine, histories: Histories, estimator: Estimator, shown: NDArray[np.bool_] | None, *, exclude_seen: bool
) -> Overview:
    """That of further histories: values of fields, exact where they are few, and of events as the service has them."""
    fields, events, lengths = list[Row](), list[Row](), list[int]()
    best = model.recommender.recommend(histories, 1, exclude_seen=exclude_seen, allowed=shown)[0][:, 0]
    for at in np.flatnonzero(best >= 0).tolist():
        history, item = histories.take(slice(at, at + 1)), int(best[at])
        players = field_players(model.recommender, model.spec, item)
        found = shapley(field_game(model.recommender, history, item, model.spec, players), len(players), SAMPLES)
        fields.append((found.none, dict(zip(players, found.values.tolist(), strict=True))))
        older, seen = history_contributions(engine.coalitions_of(history), np.array([item]), history.items)
        values = seen.values(estimator)[int(older > 0) :, 0].tolist()
        events.append((float(seen.none[0]), {str(place): value for place, value in enumerate(reversed(values), start=1)}))
        lengths.append(int(history.lengths[0]))
    return Overview(fields, events, lengths)


@with_fonts()
def draw(folder: Path, model: Bundle, found: Sequence[Explanation], histories: Histories, all_of_them: Overview, seed: int) -> None:
    """Draw shap's plots: of the first recommendation, of all, by segment, of the re-ranker where there is one, and of a few texts.

    Args:
        folder: gets `shap_*.png` and `shap_text.html`.
        model: what recommended.
        found: recommendations that were explained closely, one at least.
        histories: theirs, in the same order, then further ones.
        all_of_them: see `Overview`.
        seed: of what is drawn by chance.
    """
    first = [reason for reason in found[0].reasons if reason.kind == "event"]
    title = drawable(found[0].title, found[0].item_id, "a recommendation")  # whose it is is not said: MLflow and the report keep the figure
    shap_plots.draw(folder, title, found[0].events, first, all_of_them.fields, all_of_them.events)
    parts = segments(all_of_them.lengths)
    shap_plots.draw_segments(
        folder, {name: [all_of_them.fields[at] for at in np.flatnonzero(mask).tolist()] for name, mask in parts.items()}
    )
    if (features := explain_reranker(model.recommender, histories, seed)) is not None:
        draw_reranker(features, folder, segments(histories.lengths[: len(features)].tolist()))
    _draw_words(folder, model, found, histories)


def titled(one: Explanation, number: int) -> str:
    """Whose recommendation a figure of the stage is of: title, or id, of the item, and the user, as far as a font here can draw them."""
    return drawable(*(f"{name}, for user {one.user_id}" for name in (one.title, one.item_id)), f"recommendation {number}")


def segments(lengths: Sequence[int]) -> dict[str, NDArray[np.bool_]]:
    """Users with short and with long histories, bool [users] each; empty where one of the two has too few."""
    many = np.array(lengths)
    middle = float(np.median(many)) if len(many) else 0.0
    parts = {f"histories up to {middle:.0f} events": many <= middle, "longer histories": many > middle}
    return {} if any(int(mask.sum()) < FEWEST for mask in parts.values()) else parts


def _draw_words(folder: Path, model: Bundle, found: Sequence[Explanation], histories: Histories) -> None:
    """Words of the first items whose texts have several, where the language model is at hand."""
    texts = model.catalogue["text"]
    items = [model.index[one.item_id] for one in found]
    told = [(at, item) for at, item in enumerate(items) if has_words(texts[item])][:READ]
    encoder = encoder_of(model) if told and model.recommender.net.fusion.use_text else None
    if encoder is None:
        return
    for number, (at, item) in enumerate(told, start=1):
        one = explain_text(encoder, model.recommender, histories.take(slice(at, at + 1)), item, str(texts[item]))
        draw_text(one, folder, number, found[at].title)
