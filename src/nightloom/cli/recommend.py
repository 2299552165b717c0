"""Ask a model: recommendations for a user or a history, and why."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from nightloom.cli.app import MLRUNS, Root, app, console, plain, registry
from nightloom.core.errors import InputError
from nightloom.core.files import events_at
from nightloom.core.shell import typed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nightloom.core.queries import Query
    from nightloom.packaging.bundle import Bundle
    from nightloom.serving.model.engine import Engine

EXPLAINED = 3
"""Recommendations that --why explains."""


@app.command()
def recommend(
    model: Annotated[str, typer.Argument(help="NAME (its champion) or a bundle's folder.")],
    user: Annotated[str | None, typer.Option(help="A user id of the data that the model was made from.")] = None,
    history: Annotated[str, typer.Option(help="Item ids, oldest first, separated by commas.")] = "",
    item: Annotated[
        list[str] | None, typer.Option(help="One item id as it is, commas too. Say it again for the next, after --history.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many items.")] = 10,
    seen: Annotated[bool, typer.Option(help="Recommend items of the history too.")] = False,
    why: Annotated[bool, typer.Option("--why", help=f"Say why, for the first {EXPLAINED}, as the service does.")] = False,
    root: Root = MLRUNS,
) -> None:
    """Recommend for a user, or for a history of item ids."""
    from nightloom.packaging.bundle import Bundle

    if user is not None and (history or item):
        raise InputError("name either --user, whose history is looked up, or the history itself.")
    folder, events = bundle_of(model, root, look_up=user is not None)
    bundle = Bundle.load(folder)
    query = named(bundle, history, item or []) if user is None else stored(bundle, events, user)
    names = bundle.titles()
    titled = not (names == bundle.item_ids).all()
    shown = shown_of(model, root, bundle)
    answers = bundle.recommend([query], k, exclude_seen=not seen, allowed=shown)
    probabilities = bundle.answer_probabilities([query], answers)
    table = Table("rank", "item", *(["title"] if titled else []), "score", *(name.replace("_", " ") for name in probabilities))
    for place, (best, score) in enumerate(answers[0]):
        figures = [f"{score:.4f}", *(f"{column[0][place]:.4f}" for column in probabilities.values())]
        table.add_row(str(place + 1), plain(best), *([plain(str(names[bundle.index[best]]))] if titled else []), *figures)
    if user is not None:
        latest = ", ".join(
            str(names[at]) for one in query.history[-3:] if (at := bundle.index.get(one)) is not None and (shown is None or shown[at])
        )
        console().print(f"User {user}: {len(query.history):,} events, the latest: {latest or 'none'}", markup=False)
    console().print(table)
    if why:
        _print_reasons(model, root, bundle, query, [best for best, _ in answers[0][:EXPLAINED]], shown, exclude_seen=not seen)


def shown_of(model: str, root: Path, bundle: Bundle) -> NDArray[np.bool_] | None:
    """The items of a model that `bundle_of` found that its blocklist, or that of the environment, leaves; None where it blocks none."""
    from nightloom.core.blocklist import VARIABLE, Blocklist, blocklist_of
    from nightloom.packaging.shown import shown_mask

    path = Path(os.environ[VARIABLE]) if VARIABLE in os.environ else None if Path(model).is_dir() else blocklist_of(root, model)
    return shown_mask(bundle, Blocklist.read(path))


def _print_reasons(
    model: str,
    root: Path,
    bundle: Bundle,
    query: Query,
    items: list[str],
    shown: NDArray[np.bool_] | None,
    *,
    exclude_seen: bool,
) -> None:
    """Why some items are recommended, a sentence or two each."""
    import numpy as np

    from nightloom.serving.reasons.reason_words import verb_of
    from nightloom.serving.reasons.reasons import reasons, told

    with engine_of(model, root, bundle) as engine:
        game = engine.coalitions(query, allowed=shown)
        history = game.history
        hidden = history.items[history.seen] if exclude_seen else np.zeros(0, dtype=np.int32)
        found = reasons(game, np.array([bundle.index[one] for one in items]), engine.estimator, hidden)
        if shown is not None:
            found = [one.saying_nothing_of(set(np.flatnonzero(~shown[history.items]).tolist())) for one in found]
        titles = bundle.titles()[history.items].tolist()
        names, codes = engine.names.known, history.event_types.tolist()
        verbs = [verb_of(names[code], positive=good) for code, good in zip(codes, history.positive.tolist(), strict=True)]
        for place, one in enumerate(found, start=1):
            said = told(one, titles, titles, verbs, "en", both_signs=False)
            console().print(f"{place}. {bundle.titles()[bundle.index[items[place - 1]]]}: {said['text']}", markup=False, soft_wrap=True)


@contextmanager
def engine_of(model: str, root: Path, bundle: Bundle) -> Iterator[Engine]:
    """The engine of a model that `bundle_of` found: from the champion's serving artefact, or one that is made of the folder."""
    from nightloom.packaging.serving_artefact import write_serving
    from nightloom.serving.model.engine import Engine

    champion = None if Path(model).is_dir() else registry(root).champion(model)
    if champion is not None:
        yield Engine.open(registry(root).fetch_serving(champion, root / "cache"))
        return
    with TemporaryDirectory(prefix="nightloom-") as scratch:
        write_serving(bundle.folder, Path(scratch) / "serving")
        yield Engine.open(Path(scratch) / "serving")


def named(bundle: Bundle, history: str, items: list[str]) -> Query:
    """The history that the command names.

    Raises:
        InputError: an id is not in the catalogue.
    """
    from nightloom.core.queries import Query

    ids = [*(part.strip() for part in history.split(",") if part.strip()), *items]
    if unknown := [one for one in ids if one not in bundle.index]:
        comma = " Give ids that hold a comma with --item, one each." if history.strip() in bundle.index else ""
        raise InputError(
            f"history: {len(unknown)} of {len(ids)} ids are not in the catalogue of {len(bundle.index):,} items, for example "
            f"'{unknown[0]}'. Its ids look like '{bundle.item_ids[0]}'.{comma}"
        )
    return Query(ids)


def stored(bundle: Bundle, events: Path, user: str) -> Query:
    """A user's stored events, as the registered model reads them.

    Raises:
        InputError: the user has no events there.
    """
    from nightloom.core.queries import Query
    from nightloom.data.preparation.stored import look_up

    rows = look_up(events, [user], bundle.meta)
    if rows.empty:
        import pyarrow.parquet as pq

        example = pq.ParquetFile(events).schema_arrow and next(pq.ParquetFile(events).iter_batches(1, columns=["user_id"]), None)
        like = f" Its ids look like '{example.column(0)[0].as_py()}'." if example else ""
        raise InputError(f"--user {user}: no events of this user are in {events}.{like} Name another, or give --history.")
    times = rows["second"].tolist() if "second" in rows else None
    return Query(rows["item_id"].tolist(), times, rows["event"].tolist(), rows["positive"].tolist(), user_id=user)


def bundle_of(model: str, root: Path, *, look_up: bool) -> tuple[Path, Path]:
    """A bundle's folder, as named or that of a registered champion, and the events in which users are looked up.

    Raises:
        InputError: there is no such model, or users are looked up and the events are not here.
    """
    events = Path(os.environ.get("NIGHTLOOM_EVENTS", ""))
    if Path(model).is_dir():
        folder = Path(model)
    else:
        found = registry(root)
        champion = found.champion(model)
        if champion is None:
            raise InputError(
                f"'{model}' is no folder, and nightloom-{model} has no champion in {found.tracking.uri}. "
                f"Run a night first: {typed('nightloom', 'night', '--help')}"
            )
        folder = found.fetch(champion, root / "cache" / "champions")
        if "NIGHTLOOM_EVENTS" not in os.environ:
            events = root / "snapshots" / model / champion.tags.get("nightloom.data_hash", "")[:16]
    events = events_at(events)
    if look_up and not events.exists():
        raise InputError(
            f"--user: the events that the model was made from are not at {events}. "
            "Set NIGHTLOOM_EVENTS to a canonical events.parquet or its folder, or give --history."
        )
    return folder, events
