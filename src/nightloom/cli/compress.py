"""What serves, made smaller: each precision measured, and the one that the gate takes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from nightloom.cli.app import MLRUNS, Root, app, console, registry
from nightloom.cli.serve import only
from nightloom.core.errors import InputError

if TYPE_CHECKING:
    from nightloom.compress.parts import Part
    from nightloom.packaging.bundle import Bundle


@app.command()
def compress(
    name: Annotated[str | None, typer.Argument(help="The config's name; not needed where only one model has a champion.")] = None,
    version: Annotated[str | None, typer.Option(help="A registered version; the champion if none is named.")] = None,
    root: Root = MLRUNS,
) -> None:
    """Measure what serves of a version in each precision, the smallest first; promotion takes the first that passes.

    Asked are the latest positive events of the snapshot that the version was trained on.
    """
    from nightloom.packaging.bundle import Bundle
    from nightloom.serving.prepare import snapshot_of

    found = registry(root)
    name = name or only(found.names(), root)
    which = found.champion(name) if version is None else next((one for one in found.versions(name) if one.version == version), None)
    if which is None:
        said = "a champion" if version is None else f"version {version}"
        raise InputError(f"nightloom-{name} has no {said} in {root}. nightloom versions {name} lists what there is.")
    events = snapshot_of(root.resolve(), which)
    if events is None:
        raise InputError(
            f"the snapshot that version {which.version} was trained on is not in {root}/snapshots, so there is nothing to ask."
        )
    bundle = Bundle.load(found.fetch(which, root / "cache" / "champions"))
    table = Table(
        "part", "precision", "MB", "of float32", "NDCG lost", "nearest kept", "serves", title=f"nightloom-{name}, version {which.version}"
    )
    for rows in (_sequence(bundle, events), _text(bundle, events, root / "cache")):
        taken = False
        for part, passes in rows:
            takes, taken = passes and not taken, taken or passes
            share = "" if part.single_bytes is None else f"{part.bytes / part.single_bytes:.1%}"
            lost, near = ("" if one is None else f"{one:.2%}" for one in (part.lost, part.near))
            table.add_row(part.part, part.precision, f"{part.bytes / 1e6:.2f}", share, lost, near, "yes" if takes else "")
    console().print(table)


def _sequence(bundle: Bundle, events: Path) -> list[tuple[Part, bool]]:
    """Sequence model and item vectors in each precision, and whether it passes; so small ones that nothing is gained stay float32."""
    from nightloom.compress.parts import sequence_part
    from nightloom.compress.sequence import WORTH, SequenceGate
    from nightloom.packaging.serving_precision import LADDER, SINGLE

    gate = SequenceGate(bundle, events)
    found = [gate.measured(precisions) for precisions in LADDER]
    return [(sequence_part(one.said()), one.passes and (one.single_bytes >= WORTH or one.precisions == SINGLE)) for one in found]


def _text(bundle: Bundle, events: Path, cache: Path) -> list[tuple[Part, bool]]:
    """The text encoder likewise; nothing where the model reads no text."""
    from nightloom.compress.parts import text_part
    from nightloom.compress.text import exports

    found = [asdict(one) | {"passes": one.passes} for one in exports(bundle, cache / "encoders", events)]
    single = next((one["bytes"] for one in found if one["precision"] == "single"), None)
    return [(text_part(one, single), one["passes"]) for one in found]
