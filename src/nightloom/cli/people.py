"""Forgetting a person."""

from __future__ import annotations

from typing import Annotated

import typer

from nightloom.cli.app import MLRUNS, Root, app, console
from nightloom.core.errors import InputError
from nightloom.core.shell import typed


@app.command()
def forget(
    name: Annotated[str, typer.Argument(help="The config's name.")],
    user: Annotated[str, typer.Argument(help="The person's id, as the sources have it.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this it is only said what would be done.")] = False,
    root: Root = MLRUNS,
) -> None:
    """Take a person out of everything that is kept: store, snapshots, stages, nights, MLflow's files. It can not be undone.

    The next collect leaves the person out, also where the source still has the rows. Versions that had learned from the person are
    marked: the next night starts from scratch, and what passes its gate takes their place.
    """
    from nightloom.privacy.forget import forget as erase

    if not root.is_dir():
        raise InputError(f"{root}: no such folder. Set --root to the mlruns folder.")
    if not yes:
        raise InputError(
            "nothing was done. The person's rows would be deleted from the store, snapshots and nights, all stages be deleted and made "
            "again, and versions that learned from the person be marked. To do it, add --yes"
        )
    say = console()
    done = erase(name, user, root, lambda line: say.print(line, markup=False))
    say.print(f"{name}: forgotten. {done.rows:,} rows of the store and {done.files:,} files.", markup=False)
    for line in done.left:
        say.print(line, markup=False, soft_wrap=True)
    if done.versions:
        numbers = ", ".join(f"{one.model} {one.version}" for one in done.versions)
        say.print(f"These versions had learned from the person, or may have: {numbers}.", markup=False, soft_wrap=True)
        serving = [one for one in done.versions if "champion" in one.aliases]
        if serving:
            night = typed("nightloom", "night", "YAML", "--force")
            say.print(f"Version {serving[0].version} serves until a night replaces it: {night}", markup=False, soft_wrap=True)
