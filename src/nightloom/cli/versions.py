"""Registered versions, and the files that old nights left."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from rich.table import Table

from nightloom.cli.app import MLRUNS, Root, app, console, plain, registry
from nightloom.core.errors import InputError
from nightloom.core.shell import typed
from nightloom.runs.processes import user


@app.command()
def versions(name: Annotated[str, typer.Argument(help="The config's name.")], root: Root = MLRUNS) -> None:
    """Registered versions of a recommender, the newest first: how good, how old, from which night, and why promoted."""
    from nightloom.promotion.quality import age, quality_of
    from nightloom.promotion.registered import CHAMPION
    from nightloom.promotion.review import waiting
    from nightloom.report.words import metric_label

    registered = registry(root)
    found, ledger = registered.versions(name), registered.ledger(name)
    if not found:
        raise InputError(f"nothing is registered as nightloom-{name} in {root}. A night registers what passes its gate.")
    columns = ("version", "aliases", "quality", "age", "night", "data", "config", "git", "reason")
    table = Table(*columns, title=f"nightloom-{name}", title_justify="left")
    for one in found:
        hashes = [one.tags.get(f"nightloom.{key}", "") for key in ("data_hash", "config_hash", "git")]
        short = [value[:8] + ("+dirty" if value.endswith("+dirty") else "") for value in hashes]
        quality, night = quality_of(one.tags), one.tags.get("nightloom.night", "")
        label = metric_label(quality.metric) if quality.metric else ""
        measured, reason = f"{label} {quality.value}".strip(), quality.reason.replace(quality.metric, label)
        table.add_row(one.version, ", ".join(one.aliases), measured, age(one.created), night, *short, plain(reason))
    console().print(table)
    said = [ledger.hold.said(name)] if ledger.hold else []
    if lost := registered.lost_champion(name):
        back = typed("nightloom", "rollback", name)
        said.append(f"Version {lost} was champion, and is not there any more. To have the previous one serve: {back}")
    if waits := waiting(found, registered.aliases(name)[CHAMPION]):
        said.append(f"Version {waits.version} waits for a second person: {typed('nightloom', 'approve', name)}")
    if move := ledger.unfinished:
        said.append(f"The last {move.act}, to version {(move.aliases or {})[CHAMPION]}, was cut short. The next night ends it.")
    for line in said:
        console().print(line, markup=False, soft_wrap=True)


@app.command()
def approve(
    name: Annotated[str, typer.Argument(help="The config's name.")],
    by: Annotated[str | None, typer.Option(help="Who approves it; by default the user of this computer.")] = None,
    root: Root = MLRUNS,
) -> None:
    """Promote the version that passed its gate and waits for a second person (`promotion.mode: review`)."""
    from nightloom.promotion.review import approve as promote

    who = by or user()
    version = promote(registry(root), name, who)
    console().print(f"nightloom-{name}: version {version.version} is the champion, approved by {who}.", markup=False)


@app.command()
def rollback(name: Annotated[str, typer.Argument(help="The config's name.")], root: Root = MLRUNS) -> None:
    """Make the previous version the champion again, and hold promotions until `nightloom release`."""
    back = registry(root).rollback(name)
    console().print(f"nightloom-{back.name}: version {back.version} is the champion again.")
    console().print(f"Nothing is promoted until you type: {typed('nightloom', 'release', name)}", markup=False, soft_wrap=True)


@app.command()
def release(name: Annotated[str, typer.Argument(help="The config's name.")], root: Root = MLRUNS) -> None:
    """End the hold that a rollback has set: nights promote again what passes the gate."""
    registry(root).release(name)
    console().print(f"nightloom-{name}: nights promote again what passes their gate.")


@app.command()
def trim(
    keep: Annotated[int, typer.Option(min=1, help="Nights of each recommender whose files are kept.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    root: Root = MLRUNS,
) -> None:
    """Delete what old nights left: stages, snapshots with their pictures, fetched champions, and vectors that nothing needs any more.

    Models that a kill left in MLflow, with no version that points at them, go too.

    All that the last nights and the registered versions with an alias need is kept; so are reports, and MLflow's other files.
    """
    from nightloom.promotion.trim import aliased, delete, old, orphans
    from nightloom.promotion.trim_store import old_places
    from nightloom.runs.locks import not_in_use
    from nightloom.runs.storage import Storage

    root = root.resolve()
    storage = Storage.of(root)
    with not_in_use(root):
        known = "NIGHTLOOM_MLFLOW_URI" in os.environ or (root / "mlflow.db").exists()
        versions = aliased(storage, registry(root)) if known else {}
        lone = orphans(root, keep, registry(root)) if known else []
        found, stored = old(root, keep, versions), old_places(storage, keep, versions)
        if not dry_run:
            delete(found)
            for away in stored:
                storage.delete(away.place)
            for model in lone:
                registry(root).delete_logged(model.model_id, model.location)
    lines: dict[str, list[int]] = {}
    for one in found:  # pictures are many, and their names say nothing
        place = f"{one.path.parents[1].relative_to(root)} (some of it)" if one.kind == "pictures" else str(one.path.relative_to(root))
        lines.setdefault(place, []).append(one.bytes)
    for place, sizes in lines.items():
        console().print(f"{sum(sizes) / 2**20:10,.1f} MiB  {place}", markup=False, soft_wrap=True)
    done = f"{'would be ' if dry_run else ''}deleted under"
    total = sum(one.bytes for one in found) / 2**20
    console().print(f"{total:10,.1f} MiB in {len(found):,} folders and files {done} {root}", markup=False)
    if storage.url:
        total = sum(one.bytes for one in stored) / 2**20
        console().print(f"{total:10,.1f} MiB in {len(stored):,} folders {done} {storage.url}", markup=False)
    if lone:
        console().print(f"{len(lone)} models in MLflow without a version {done} {registry(root).tracking.uri}", markup=False)
