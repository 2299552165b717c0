"""Serving a champion."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from nightloom.cli.app import MLRUNS, Root, app, registry
from nightloom.core.errors import InputError


@app.command()
def serve(
    name: Annotated[str | None, typer.Argument(help="The config's name; not needed where only one model has a champion.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen at. Beyond this machine, NIGHTLOOM_API_KEYS must be set.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes that answer.")] = 2,
    access_log: Annotated[bool, typer.Option(help="Write a line for each request.")] = True,
    rules: Annotated[Path | None, typer.Option(help="YAML file of business rules; read again whenever it changes.")] = None,
    scan_up_to: Annotated[int, typer.Option(min=0, help="Items that are all scored; of a larger catalogue, candidates.")] = 200_000,
    root: Root = MLRUNS,
) -> None:
    """Answer requests from the champion, until Ctrl-C. It learns from every event, and follows the registry."""
    from nightloom.serving.run import Place, serve

    place = Place(host, port, workers, access_log, None if rules is None else rules.resolve(), scan_up_to)
    place.check()
    serve(name or only(registry(root).names(), root), root, partial(registry, root), place)


def only(names: list[str], root: Path) -> str:
    """The name where there is one alone.

    Raises:
        InputError: there are none, or several.
    """
    if len(names) == 1:
        return names[0]
    remedy = f"Name one of {', '.join(names)}." if names else "Run a night first."
    raise InputError(f"{len(names)} models have a champion in {root}. {remedy}")
