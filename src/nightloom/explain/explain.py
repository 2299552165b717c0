"""Stage explain: the reasons of the first recommendation for a sample of held-out users."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nightloom.config import ExplainConfig
from nightloom.core.blocklist import Blocklist
from nightloom.core.files import write_json
from nightloom.core.sequences import Histories, Queries, Sequences
from nightloom.core.streaming import queries_of
from nightloom.evaluation.samples import pick
from nightloom.explain import plots
from nightloom.explain.fidelity import Removal, removals, summarise
from nightloom.explain.fit import fit, long_runs
from nightloom.explain.games import ID, PICTURE, TEXT, code_spans, field_game, field_players
from nightloom.explain.item_map import item_map, main_column
from nightloom.explain.overview import draw, overview, overview_of, titled
from nightloom.explain.reasons import HIDDEN, Reason, sentence, shares
from nightloom.explain.service_fidelity import CHALLENGER, CHAMPION, as_known_to, fidelity_means, service_fidelity
from nightloom.explain.shapley import Shapley, shapley
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.serving_artefact import write_serving
from nightloom.packaging.serving_format import EXPLAINER
from nightloom.packaging.shown import shown_mask
from nightloom.serving.model.engine import Engine
from nightloom.serving.reasons.attribution import Estimator
from nightloom.serving.reasons.coalitions import history_players

DAY = 86_400
FIDELITY = "fidelity.parquet"
LISTED = 6
"""Events of a recommendation in reasons.json; reasons.parquet has all."""
PLOTTED = 4
"""Recommendations that get a plot of their own."""
FIT_SAMPLES = 600
"""Model evaluations of a history that the service's estimator is fitted to: many histories of middling precision say most."""
MOST_FIELDS = 4096
"""Most model evaluations of an item's fields: all coalitions of 12."""
COLUMNS = ["user_id", "item_id", "title", "player_kind", "player", "label", "position", "age_days", "value", "error", "share", "drop"]
"""Columns of reasons.parquet."""


@dataclass(frozen=True)
class Explanation:
    """One user's first recommendation and its reasons.

    Attributes:
        user_id: whose recommendation it is.
        item_id: what was recommended.
        title: its title.
        reasons: of both games; the events, oldest first, then the fields.
        events: Shapley values of the history's events.
        fields: Shapley values of the item's fields.
        older: how many events are one player together, since they are older than those that are players of their own.
        removals: its score and rank without the most important events.
    """

    user_id: str
    item_id: str
    title: str
    reasons: list[Reason]
    events: Shapley
    fields: Shapley
    older: int
    removals: list[Removal] = field(default_factory=list)

    @property
    def sentence(self) -> str:
        """The strongest reasons in words."""
        return sentence(self.title, self.reasons, self.events.all, self.events.none)

    @property
    def ranked(self) -> list[int]:
        """Positions of the events that play alone, the strongest first."""
        order: list[int] = (self.older + np.argsort(-self.events.values[int(self.older > 0) :], kind="stable")).tolist()
        return order

    def of(self, kind: str) -> list[Reason]:
        """Reasons of a kind, the strongest first."""
        return sorted((reason for reason in self.reasons if reason.kind == kind), key=lambda reason: -abs(reason.value))


def explain(
    prepared: Path,
    bundle: Path,
    folder: Path,
    progress: Callable[[str], None] | None = None,
    *,
    explain: ExplainConfig,
    protocol: str,
    exclude_seen: bool,
    seed: int,
    blocklist: Blocklist | None = None,
    champion: Path | None = None,
) -> dict[str, Any]:
    """Explain the first recommendation of some test users of one protocol.

    Args:
        prepared: folder of stage prepare.
        bundle: folder of the model under the protocol.
        folder: gets `reasons.parquet`, `reasons.json`, `plots/*`, `fidelity.parquet` (see `service_fidelity`) and `explainer.json`, by
            which the service estimates values.
        progress: gets a line in words for each recommendation that was explained.
        explain: how many users, and how closely their histories are looked at.
        protocol: which split.
        exclude_seen: whether items of the history are left out of the recommendations.
        seed: of the choice of users and of the sampling.
        blocklist: what is not to be shown; none of it is recommended, or named as a reason.
        champion: serving artefact of the champion, whose estimates are measured on the same users; None without one.

    Returns:
        Figures: `users`, `model_evaluations`, `largest_gap` (of the efficiency axiom, zero but for rounding),
        `largest_relative_error` (mean standard error over the mean absolute value), `fidelity` (see `fidelity.summarise`),
        `service_fidelity` (challenger, champion -> `users` and means of the measures of the service's estimates), and
        `estimator` (see `fit.quality`; null where there were too few histories to fit it).
    """
    model = Bundle.load(bundle)
    with TemporaryDirectory(prefix="nightloom-") as scratch:
        write_serving(bundle, Path(scratch) / "serving")
        engine = Engine.open(Path(scratch) / "serving")
    sequences = Sequences.load(prepared / f"sequences_{protocol}.npz")
    queries = queries_of(protocol, sequences, "test", exclude_seen=exclude_seen)
    users = pd.read_parquet(prepared / "users.parquet", columns=["user_id"])["user_id"].to_numpy(dtype=object)
    rows = pick(queries, explain.users, seed)
    histories = replace(queries.histories.take(rows).packed(), prefixes=None)  # coalitions of events are beginnings of nothing
    shown = None if blocklist is None else shown_mask(model, blocklist)
    best = model.recommender.recommend(histories, 1, exclude_seen=exclude_seen, allowed=shown)[0][:, 0]
    found: list[Explanation] = []
    for at in np.flatnonzero(best >= 0).tolist():
        history, item, user_id = histories.take(slice(at, at + 1)), int(best[at]), users[queries.users[rows[at]]]
        budget = explain.max_events, explain.samples, explain.precision
        one = explain_item(model, engine, history, item, *budget, seed=seed, user_id=user_id, shown=shown)
        hidden = history.items[history.seen] if exclude_seen else np.zeros(0, dtype=np.int32)
        found.append(replace(one, removals=removals(engine.coalitions_of(history), item, one.ranked, hidden, seed)))
        if progress:
            progress(f"explained {len(found)} of {len(rows)} recommendations")
    others = pick(queries, explain.users + explain.fit_users, seed)
    others = others[~np.isin(others, rows)]
    fitted_to = replace(queries.histories.take(others).packed(), prefixes=None)
    estimator = fit(long_runs(engine, fitted_to, FIT_SAMPLES, seed))
    write_json(folder / EXPLAINER, asdict(estimator))
    asked = pick(queries, explain.users + explain.fit_users + explain.fidelity_users, seed)
    asked = asked[~np.isin(asked, [*rows, *others])]
    measured = _service_fidelity(model, engine, estimator, queries.take(asked), users, champion)
    measured.to_parquet(folder / FIDELITY, index=False)
    fidelity = summarise([one.removals for one in found])
    means = fidelity_means(measured)
    _write(found, {"fidelity": fidelity, "service_fidelity": means, "map": _map(model, sequences, shown)}, protocol, folder)
    if found:
        explained_rows = rows[best >= 0]
        seen = queries.histories.take(np.concatenate([explained_rows, others])).packed()
        lengths = queries.histories.lengths[explained_rows].tolist()
        further = overview(model, engine, fitted_to, estimator, shown, exclude_seen=exclude_seen)
        draw(folder / "plots", model, found, replace(seen, prefixes=None), overview_of(found, lengths) + further, seed)
    games = [game for one in found for game in (one.events, one.fields)]
    return {
        "users": len(found),
        "model_evaluations": sum(game.evaluations for game in games),
        "largest_gap": max((abs(game.gap) for game in games), default=0.0),
        "largest_relative_error": max((game.relative_error for game in games), default=0.0),
        "fidelity": fidelity,
        "service_fidelity": means,
        "estimator": estimator.fitted,
    }


def _service_fidelity(
    model: Bundle, engine: Engine, estimator: Estimator, queries: Queries, users: NDArray[np.object_], champion: Path | None
) -> pd.DataFrame:
    """Rows of tonight's model and, where there is one, of the champion."""
    histories = replace(queries.histories.packed(), prefixes=None, links=None)  # friends are no events of the history
    names = users[queries.users].tolist()
    rows = [service_fidelity(engine, estimator, histories, names, CHALLENGER)]
    if champion is not None:
        other = Engine.open(champion)
        known = as_known_to(other, histories, model.item_ids.tolist(), model.meta["event_types"])
        rows.append(service_fidelity(other, other.estimator, known, names, CHAMPION))
    return pd.concat(rows, ignore_index=True)


def explain_item(
    model: Bundle,
    engine: Engine,
    history: Histories,
    item: int,
    max_events: int,
    samples: int,
    precision: float,
    *,
    seed: int = 0,
    user_id: str = "",
    shown: NDArray[np.bool_] | None = None,
) -> Explanation:
    """Explain why one item is recommended for one history.

    Args:
        model: what recommended it.
        engine: of the same model; it scores coalitions of events.
        history: one query with at least `nightloom.evaluation.samples.FEWEST_EVENTS` events.
        item: dense id.
        max_events: latest events that are players; all older ones are one player more.
        samples: most model evaluations of the events.
        precision: sampling ends where the mean standard error is this share of the mean absolute value.
        seed: of the sampled coalitions.
        user_id: whose history it is, for display.
        shown: bool [items], what may be shown; events of other items are told without a name. None: all.
    """
    recommender, names = model.recommender, model.titles()
    game, items = engine.coalitions_of(history), np.array([item])
    older, owner = history_players(game.events, max_events)
    many = int(owner[-1]) + 1
    events = shapley(lambda keep: game.log_probabilities(keep[:, owner], items)[:, 0], many, samples, seed, precision)
    drops = events.all - game.log_probabilities((~np.eye(many, dtype=np.bool_))[:, owner], items)[:, 0]
    players = field_players(recommender, model.spec, item)
    worth = field_game(recommender, history, item, model.spec, players)
    fields = shapley(worth, len(players), min(samples, MOST_FIELDS), seed, precision)
    reasons = [*_event_reasons(history, older, events, drops, model, names, shown), *_field_reasons(item, players, fields, model)]
    return Explanation(user_id, model.item_ids[item], names[item], reasons, events, fields, older)


def _event_reasons(
    history: Histories,
    older: int,
    found: Shapley,
    drops: NDArray[np.float64],
    model: Bundle,
    names: NDArray[np.object_],
    shown: NDArray[np.bool_] | None,
) -> list[Reason]:
    figures = list(zip(found.values.tolist(), found.errors.tolist(), shares(found.values).tolist(), strict=True))
    said = f"{older:,} older event{'s' if older > 1 else ''}"
    reasons = [Reason("event", "older", said, *figures.pop(0), drop=float(drops[0]))] if older else []
    now, events = int(history.request_time[0]), int(history.lengths[0])
    for at, figure in enumerate(figures, start=older):
        item = int(history.items[at])
        age = (now - int(history.times[at])) / DAY if now > 0 else None
        drop = float(drops[at - older + int(older > 0)])
        player, label = (model.item_ids[item], names[item]) if shown is None or shown[item] else (HIDDEN, HIDDEN)
        reasons.append(Reason("event", player, label, *figure, position=events - at, age_days=age, drop=drop))
    return reasons


def _field_reasons(item: int, players: list[str], found: Shapley, model: Bundle) -> list[Reason]:
    content, spans = model.recommender.content, code_spans(model.spec)
    own = content.codes[content.code_offsets[item] : content.code_offsets[item + 1]].tolist()

    def label(name: str) -> str:
        if name == TEXT:
            return "its text"
        if name == PICTURE:
            return "its picture"
        if name == ID:
            return "what other users went on to (id and transitions)"
        if name not in spans:
            return f"{name.replace('_', ' ')} ({model.items[name].iloc[item]:g})"
        first, last = spans[name]
        values = [model.spec.vocabularies[name][code - first] for code in own if first <= code < last]
        return f"{name.replace('_', ' ')} ({', '.join(values)})"

    figures = zip(found.values.tolist(), found.errors.tolist(), shares(found.values).tolist(), strict=True)
    return [Reason("field", name, label(name), *figure) for name, figure in zip(players, figures, strict=True)]


def _map(model: Bundle, sequences: Sequences, shown: NDArray[np.bool_] | None) -> dict[str, Any] | None:
    """The map of the item space."""
    known = {name: model.catalogue[name] for name in model.catalogue.names}
    column, categories = main_column(model.spec.kinds, known, model.tags_separator)
    popularity = np.bincount(sequences.items, minlength=sequences.n_items)
    return item_map(model.recommender.item_vectors().numpy(), popularity, model.titles().tolist(), column, categories, shown)


def _write(found: list[Explanation], figures: Mapping[str, Any], protocol: str, folder: Path) -> None:
    about = ("user_id", "item_id", "title")
    rows = [
        {name: getattr(one, name) for name in about} | asdict(reason) | {"player_kind": reason.kind}
        for one in found
        for reason in one.reasons
    ]
    frame = pd.DataFrame(rows, columns=COLUMNS).astype({"position": "Int32", "age_days": "float64"})
    frame.to_parquet(folder / "reasons.parquet", index=False)
    sample = [
        {name: getattr(one, name) for name in about}
        | {
            "sentence": one.sentence,
            "log_probability": one.events.all,
            "log_probability_without_history": one.events.none,
            "events": [asdict(reason) for reason in one.of("event")[:LISTED]],
            "fields": [asdict(reason) for reason in one.of("field")],
        }
        for one in found
    ]
    write_json(folder / "reasons.json", {"protocol": protocol, "sample": sample, **figures})
    (folder / "plots").mkdir(exist_ok=True)
    for number, one in enumerate(found[:PLOTTED], start=1):
        plots.recommendation(folder / "plots" / f"reasons_{number}.png", titled(one, number), one.reasons)
    if found:
        plots.summary(folder / "plots" / "reasons_summary.png", [one.reasons for one in found])
