"""Ask a model: recommendations for a user or a history, and why."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from nightloom.cli.app import MLRUNS, Root, app, console, plain, registry
from nightloom.core.errors import InputError
from nightloom.core.shell import typed

if TYPE_CHECKING:
    from nightloom.core.queries import Query
    from nightloom.packaging.bundle import Bundle

EXPLAINED, SAMPLES, EVENTS = 3, 64, 10
"""Of --why: recommendations that are explained, model evaluations for each, latest events that take part one by one."""


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
    why: Annotated[bool, typer.Option("--why", help=f"Say why, for the first {EXPLAINED} (seconds).")] = False,
    root: Root = MLRUNS,
) -> None:
    """Recommend for a user, or for a history of item ids."""
    from nightloom.core.blocklist import FOLDER as BLOCKLISTS
    from nightloom.packaging.bundle import Bundle, blocked_mask

    if user is not None and (history or item):
        raise InputError("name either --user, whose history is looked up, or the history itself.")
    folder, events = bundle_of(model, root, look_up=user is not None)
    bundle = Bundle.load(folder)
    query = _named(bundle, history, item or []) if user is None else _stored(bundle, events, user)
    names = bundle.titles()
    named = not (names == bundle.item_ids).all()
    blocklist = None if Path(model).is_dir() else root / BLOCKLISTS / f"{model}.yaml"
    answers = bundle.recommend([query], k, exclude_seen=not seen, allowed=blocked_mask(bundle, blocklist))
    probabilities = bundle.answer_probabilities([query], answers)
    table = Table("rank", "item", *(["title"] if named else []), "score", *(name.replace("_", " ") for name in probabilities))
    for place, (best, score) in enumerate(answers[0]):
        figures = [f"{score:.4f}", *(f"{column[0][place]:.4f}" for column in probabilities.values())]
        table.add_row(str(place + 1), plain(best), *([plain(str(names[bundle.index[best]]))] if named else []), *figures)
    if user is not None:
        latest = ", ".join(str(names[bundle.index[one]]) for one in query.history[-3:] if one in bundle.index)
        console().print(f"User {user}: {len(query.history):,} events, the latest: {latest or 'none'}", markup=False)
    console().print(table)
    if why:
        _print_reasons(bundle, query, [best for best, _ in answers[0][:EXPLAINED]])


def _print_reasons(bundle: Bundle, query: Query, items: list[str]) -> None:
    from nightloom.evaluation.samples import FEWEST_EVENTS
    from nightloom.explain.explain import explain_item

    history = bundle.histories([query])
    if int(history.lengths[0]) < FEWEST_EVENTS:
        console().print(f"Why: a history of fewer than {FEWEST_EVENTS} known items leaves nothing to tell apart.")
        return
    for place, best in enumerate(items, start=1):
        found = explain_item(bundle, history, bundle.index[best], max_events=EVENTS, samples=SAMPLES)
        console().print(f"{place}. {found.sentence}", markup=False, soft_wrap=True)


def _named(bundle: Bundle, history: str, items: list[str]) -> Query:
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


def _stored(bundle: Bundle, events: Path, user: str) -> Query:
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
    events = events / "events.parquet" if events.is_dir() else events
    if look_up and not events.is_file():
        raise InputError(
            f"--user: the events that the model was made from are not at {events}. "
            "Set NIGHTLOOM_EVENTS to a canonical events.parquet or its folder, or give --history."
        )
    return folder, events
