"""What all commands share: the app, its options, the console, and how the process ends."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

from nightloom import __version__
from nightloom.core.disk import command_trouble, flush
from nightloom.core.errors import InputError, NightloomError
from nightloom.core.secrets import hidden, hide_in_logs
from nightloom.core.streams import any_encoding

if TYPE_CHECKING:
    from nightloom.promotion.registry import Registry

app = typer.Typer(
    name="nightloom",
    help="A recommender that retrains every night. First steps: init, check, night, recommend.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
Root = Annotated[Path, typer.Option("--root", help="The mlruns folder.", envvar="NIGHTLOOM_ROOT")]
File = Annotated[Path | None, typer.Argument(help="Your own YAML, as `nightloom init` writes it.", show_default=False)]
Preset = Annotated[str | None, typer.Option(help="A preset that ships with Nightloom, instead of a YAML.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. training.epochs=5. Repeatable.")
]
MLRUNS = Path("mlruns")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nightloom {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")] = False,
) -> None:
    """Options of the command itself, without a subcommand."""


def main() -> None:
    """Entry point: refused input exits with 2 and faults that can be helped with 1, each with a plain message."""
    from nightloom.runs.environment import telemetry_off

    telemetry_off()
    hide_in_logs()
    any_encoding()
    try:
        try:
            app()
        finally:
            flush()
    except InputError as error:
        _end(error)
    except Exception as error:
        root = Path(os.environ.get("NIGHTLOOM_ROOT", MLRUNS))
        if said := command_trouble(error, root):
            _end(InputError(said))
        if isinstance(error, NightloomError):
            _end(error)
        sys.stderr.write(hidden(traceback.format_exc()))
        sys.exit(1)


def _end(error: NightloomError) -> NoReturn:
    """Say why a command ended, and end it."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(hidden(f"nightloom: {error}"), markup=False)
    sys.exit(error.exit_code)


def console() -> Console:
    """Standard output; a pipe or file gets lines as long as they are."""
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=200)


def plain(text: str) -> str:
    """Text in a table as it is, brackets included."""
    return text.replace("[", r"\[")


def source(file: Path | None, preset: str | None) -> list[str]:
    """The config's arguments for a flow.

    Raises:
        InputError: neither a file nor a preset is named, or both are.
    """
    from nightloom.config import presets
    from nightloom.core.shell import typed

    if (file is None) == (preset is None):
        raise InputError(f"name either a YAML or --preset NAME. To write a YAML for your tables: {typed('nightloom', 'init', '--help')}")
    if preset is not None:
        return ["--preset", preset]
    if not file.exists() and str(file) in presets():  # type: ignore[union-attr]  # one of the two is there
        raise InputError(f"there is no file {file}, but a preset of that name. Write --preset {file}")
    return ["--config", str(file)]


def registry(root: Path) -> Registry:
    """The registry, but no new one where there is none yet.

    Raises:
        InputError: no night has run under this root.
    """
    from nightloom.promotion.registry import Registry

    if "NIGHTLOOM_MLFLOW_URI" not in os.environ and not (root / "mlflow.db").exists():
        raise InputError(f"{root}/mlflow.db: no night has run there. Set --root to the mlruns folder, or NIGHTLOOM_MLFLOW_URI.")
    return Registry(root)
