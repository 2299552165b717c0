"""Nights: run one, check its data, and have one started on time. They run the flows of the project's checkout."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

import nightloom
from nightloom.cli.app import File, Overrides, Preset, app, source
from nightloom.core.errors import InputError

Root = Annotated[Path | None, typer.Option("--root", help="The mlruns folder (default: mlruns).", envvar="NIGHTLOOM_ROOT")]


@app.command()
def check(file: File = None, preset: Preset = None, overrides: Overrides = None, root: Root = None) -> None:
    """Read the tables of a config and check them as a night would, without training.

    Prints counts, rows set aside with their reasons, label balance and split sizes. Exit code 0: a night can run; 2: it would be refused.
    """
    _run("flows.check", _arguments(file, preset, overrides), root)


@app.command()
def night(
    file: File = None,
    preset: Preset = None,
    force: Annotated[bool, typer.Option("--force", help="Train even if nothing has changed.")] = False,
    as_of: Annotated[str | None, typer.Option(help="A past day: as a night of that day would have; nothing is registered.")] = None,
    overrides: Overrides = None,
    root: Root = None,
) -> None:
    """Run one night: check the data, train, evaluate, explain, and promote what is as good as what serves.

    Exit code 0: it ended well, promoted or not; 2: the input was refused; 1: a fault.
    """
    _run(
        "flows.nightly",
        [*_arguments(file, preset, overrides), *(["--force"] if force else []), *(["--as-of", as_of] if as_of else [])],
        root,
    )


@app.command()
def deploy(
    file: File = None,
    preset: Preset = None,
    cron: Annotated[str, typer.Option(help="When a night starts, as in crontab.")] = "0 2 * * *",
    timezone: Annotated[str, typer.Option(help="Time zone of --cron, for example Europe/Berlin.")] = "UTC",
    name: Annotated[str | None, typer.Option(help="Name of the deployment. Default: the config's name.")] = None,
    pool: Annotated[str | None, typer.Option(help="Work pool. Default: local, where nights run on the worker's machine.")] = None,
    overrides: Overrides = None,
) -> None:
    """Have Prefect start a night on time: makes or updates the deployment on the server that PREFECT_API_URL names.

    A worker of the pool has to run there, too; `make ui` and the units in deployment/systemd/ start that of `local`.
    """
    options = ["--cron", cron, "--timezone", timezone, *(["--name", name] if name else []), *(["--pool", pool] if pool else [])]
    _run("flows.deploy", [*_arguments(file, preset, overrides), *options], None)


def _arguments(file: Path | None, preset: str | None, overrides: list[str] | None) -> list[str]:
    return [*source(file, preset), *(part for one in overrides or [] for part in ("--set", one))]


def checkout() -> Path | None:
    """The project's folder: where this package lies in one, else the working directory; None where neither holds the flows."""
    places = (Path(nightloom.__file__).parents[2], Path.cwd())
    return next((place for place in places if (place / "flows" / "nightly.py").is_file()), None)


def _run(module: str, arguments: list[str], root: Path | None) -> NoReturn:
    """Become the module's command, with this interpreter: its output, signals and exit code are those of `nightloom`.

    Raises:
        InputError: no checkout is here.
    """
    place = checkout()
    if place is None:
        raise InputError(
            "nights need the project's folders flows/, tasks/ and expectations/, and these are not here. "
            "Run the command in a checkout of Nightloom (git clone, then make setup), or install it from one (pip install -e)."
        )
    settings = dict(os.environ)
    settings["PYTHONPATH"] = os.pathsep.join([str(place), *filter(None, [settings.get("PYTHONPATH")])])
    if root is not None:
        settings["NIGHTLOOM_ROOT"] = str(root)
    sys.stdout.flush()
    sys.stderr.flush()
    # -P: the working directory, which may be anyone's, is not searched for modules.
    os.execve(sys.executable, [sys.executable, "-P", "-m", module, *arguments], settings)
