"""Explain one recommendation slowly: values with small errors, of all events and of the item's fields."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from nightloom.cli.app import MLRUNS, Root, app, console, plain
from nightloom.cli.recommend import bundle_of, engine_of, named, shown_of, stored
from nightloom.core.errors import InputError

SHOWN = 15
"""Events that are printed."""


@app.command()
def explain(
    model: Annotated[str, typer.Argument(help="NAME (its champion) or a bundle's folder.")],
    recommended: Annotated[str | None, typer.Argument(help="Id of the item. Default: what is recommended first.")] = None,
    user: Annotated[str | None, typer.Option(help="A user id of the data that the model was made from.")] = None,
    history: Annotated[str, typer.Option(help="Item ids, oldest first, separated by commas.")] = "",
    item: Annotated[
        list[str] | None, typer.Option(help="One item id as it is, commas too. Say it again for the next, after --history.")
    ] = None,
    precision: Annotated[float, typer.Option(min=0.001, max=1, help="Standard error, as a share of the values' mean size.")] = 0.2,
    samples: Annotated[int, typer.Option(min=16, help="Most model evaluations.")] = 100_000,
    events: Annotated[int, typer.Option(min=2, max=200, help="Latest events that are told apart.")] = 50,
    root: Root = MLRUNS,
) -> None:
    """Explain a recommendation: what each event of the history adds, and each field of the item.

    Values are Shapley values of the logarithm of the item's probability; sampling ends at the wished precision.
    """
    from nightloom.evaluation.samples import FEWEST_EVENTS
    from nightloom.explain.explain import explain_item
    from nightloom.packaging.bundle import Bundle

    if user is not None and (history or item):
        raise InputError("name either --user, whose history is looked up, or the history itself.")
    folder, known = bundle_of(model, root, look_up=user is not None)
    bundle = Bundle.load(folder)
    query = named(bundle, history, item or []) if user is None else stored(bundle, known, user)
    asked = bundle.histories([query])
    if int(asked.lengths[0]) < FEWEST_EVENTS:
        raise InputError(f"history: fewer than {FEWEST_EVENTS} known items leave nothing to tell apart. Name more with --history.")
    if recommended is not None and recommended not in bundle.index:
        raise InputError(
            f"'{recommended}' is not in the catalogue of {len(bundle.index):,} items. Its ids look like '{bundle.item_ids[0]}'."
        )
    shown = shown_of(model, root, bundle)
    if recommended is not None:
        dense = bundle.index[recommended]
        if shown is not None and not shown[dense]:
            raise InputError("this item is blocked, so nothing is said of it. Name another, or see the blocklist.")
    elif best := bundle.recommend([query], 1, allowed=shown)[0]:
        dense = bundle.index[best[0][0]]
    else:
        raise InputError("nothing is left to recommend: the history and the blocklist hold the whole catalogue. Name an item.")
    with engine_of(model, root, bundle) as engine:
        found = explain_item(bundle, engine, asked, dense, max_events=events, samples=samples, precision=precision, shown=shown)
    console().print(found.sentence, markup=False, soft_wrap=True)
    for kind, heading in (("event", "event of the history"), ("field", "field of the item")):
        table = Table(heading, "value", "standard error", "share")
        for one in found.of(kind)[:SHOWN]:
            table.add_row(plain(one.label), f"{one.value:+.4f}", f"{one.error:.4f}", f"{100 * one.share:+.0f} %")
        console().print(table)
    console().print(
        f"Log-probability {found.events.all:.3f}, without a history {found.events.none:.3f}; {found.events.evaluations:,} evaluations, "
        f"mean standard error {found.events.relative_error:.0%} of the values' mean size.",
        markup=False,
        soft_wrap=True,
    )
