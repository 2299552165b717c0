"""Data: write a config for one's own tables, and look at what a config reads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from nightloom.cli.app import MLRUNS, File, Overrides, Preset, Root, app, console, plain, source
from nightloom.core.disk import disk_of
from nightloom.core.errors import InputError
from nightloom.core.secrets import has_secret, hidden


@app.command()
def init(
    tables: Annotated[list[str], typer.Argument(help="Files, folders or SQL addresses: events, and perhaps items and users.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The YAML to write.")] = Path("mine.yaml"),
    name: Annotated[str | None, typer.Option(help="Name of the recommender. Default: that of the YAML.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the YAML if it is there.")] = False,
) -> None:
    """Write a first config for your tables: guesses which is which and what the columns mean, and says so in comments."""
    from nightloom.config import load_config
    from nightloom.core.files import write_text
    from nightloom.core.shell import typed
    from nightloom.data.draft.look import look_at
    from nightloom.data.draft.roles import assign
    from nightloom.data.draft.write import TABLES, draft

    if output.exists() and not force:
        raise InputError(f"{output} is there already. Write another with -o, or overwrite it with --force.")
    if secret := [place for place in tables if has_secret(place)]:
        raise InputError(
            f"{hidden(secret[0])} holds a password, token or key. Leave it out and set NIGHTLOOM_SQL_PASSWORD in the environment."
        )
    found = assign([look for place in tables for look in look_at(place)])
    slug = re.sub(r"[^a-z0-9_-]+", "-", (name or output.stem).lower()).strip("-_")[:63] or "mine"
    text = draft(slug, found, output.parent)
    with disk_of(output):
        if output.exists() and not output.is_file():  # a pipe or a device is written, not replaced
            output.write_text(text, encoding="utf-8")
        else:
            write_text(output.resolve(), text)
    load_config(output)
    for table in (one for one in TABLES if one in found):
        guess = found[table]
        shown = ", ".join(f"{own} <- {column}" if own != column else own for own, column in guess.columns.items())
        console().print(f"{table}: {guess.look.name} ({shown})", markup=False, soft_wrap=True)
    console().print(f"Wrote {output}. Read its comments, then: {typed('nightloom', 'check', output)}", markup=False, soft_wrap=True)


@app.command()
def data(
    file: File = None,
    preset: Preset = None,
    config: Annotated[Path | None, typer.Option(hidden=True)] = None,  # FILE as it was written before, for one version more
    overrides: Overrides = None,
    root: Root = MLRUNS,
) -> None:
    """Read the tables of a config into a snapshot, and describe it."""
    from nightloom.config import load_config, load_preset
    from nightloom.data.collect import collect
    from nightloom.data.tables.snapshot import read_snapshot

    file = file or config
    source(file, preset)
    settings = load_preset(preset, overrides or ()) if preset is not None else load_config(file or "", overrides or ())
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    snapshot = collect(settings.name, settings.data, root, lambda line: errors.print(line, style="dim", markup=False))
    out = console()
    for name, frame in read_snapshot(snapshot.path).present().items():
        table = Table(
            "column", "type", "feature", "missing", "distinct", "example", title=f"{name}: {len(frame):,} rows", title_justify="left"
        )
        for column in frame.columns:
            values = frame[column]
            kind = snapshot.features.get(column, "") if name == "items" else ""
            known = values.dropna()
            example = str(known.iloc[0])[:40] if len(known) else ""
            table.add_row(column, str(values.dtype), kind, f"{int(values.isna().sum()):,}", f"{known.nunique():,}", plain(example))
        out.print(table)
    for name, count in snapshot.rejected.items():
        out.print(f"{name}: {count:,} rows could not be read; they are in {snapshot.path / f'rejected_{name}.parquet'}", markup=False)
    if snapshot.licence:
        out.print(f"Licence: {snapshot.licence}", markup=False)
    out.print(f"Snapshot: {snapshot.path}", markup=False)
