"""What every flow that is run as a command shares: its arguments, what has to be set before Prefect is imported, its exit code."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from flows.orphans import end_orphans
from nightloom.config import load_config, load_preset
from nightloom.core.disk import command_trouble, flush, writable
from nightloom.core.errors import InputError, NightloomError, RenamedWarning
from nightloom.core.shell import typed
from nightloom.runs.environment import telemetry_off

Result = TypeVar("Result")
Check = Callable[[Namespace], None]
"""Refuses what argparse can not, by an InputError; it may change what was given."""


def parser(flow: str, about: str, *, config: bool = True) -> ArgumentParser:
    """A flow's arguments: `--set`, and where its config is.

    Args:
        flow: the file's name in flows/.
        about: what the command does, in a line.
        config: whether there is one config, named by `--preset` or `--config`.
    """
    made = ArgumentParser(prog=typed("python", "-m", f"flows.{flow}"), description=about)
    if config:
        source = made.add_mutually_exclusive_group(required=True)
        source.add_argument("--preset", help="a preset that ships with Nightloom")
        source.add_argument("--config", type=Path, dest="file", metavar="CONFIG", help="your own YAML")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="override, e.g. training.epochs=5")
    return made


def parsed(command: ArgumentParser, check: Check = lambda _: None, arguments: Sequence[str] | None = None) -> Namespace:
    """What a command line says, with its config read; ends the process with exit code 2 where it is refused.

    Args:
        command: the flow's arguments.
        check: what else is checked.
        arguments: the command line; by default that of this process.

    Returns:
        The arguments; `config` is the RunConfig where the command has one.
    """
    given = command.parse_args(arguments)
    try:
        if "preset" in given:
            given.config = load_preset(given.preset, given.overrides) if given.preset else load_config(given.file, given.overrides)
        check(given)
    except NightloomError as error:
        sys.exit(refused(error, Console(stderr=True, highlight=False)))
    return given


def before_prefect(module: str, command: ArgumentParser, check: Check = lambda _: None) -> Namespace:
    """Prepare for the import of Prefect, which takes seconds: a flow that is run as a command reads its arguments first.

    Telemetry is switched off, which Prefect reads when it is imported. A command's console shows what stages say; Prefect's own lines
    stay in its log, its database lies beside the runs. A flow that Prefect runs takes its settings from there.

    Args:
        module: the flow's `__name__`.
        command: the flow's arguments.
        check: what else is checked.

    Returns:
        As `parsed`; nothing where the flow is imported.
    """
    telemetry_off()
    os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "nightloom")  # its warnings belong to the run's log
    if module != "__main__":
        return Namespace()
    warnings.simplefilter("ignore")
    warnings.simplefilter("default", RenamedWarning)
    given = parsed(command, check)
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_HOME", str((root() / "prefect").resolve()))
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    try:  # a Prefect that can not write its database is waited for until the time-out above
        for folder in (root(), Path(os.environ["PREFECT_HOME"])):
            writable(folder)
    except InputError as error:
        sys.exit(refused(error, Console(stderr=True, highlight=False)))
    end_orphans()
    return given


def root() -> Path:
    """The mlruns folder of a flow that is run as a command."""
    return Path(os.environ.get("NIGHTLOOM_ROOT", "mlruns"))


def source(given: Namespace) -> list[str]:
    """The arguments of `nightloom night` that name the config which a command was given."""
    named = [str(given.file)] if given.file else ["--preset", given.preset]
    return [*named, *(part for override in given.overrides for part in ("--set", override))]


def listed(names: str | None, known: Sequence[str], what: str = "family") -> list[str]:
    """Names of a comma-separated `--models`, in that order; all of them where there is none.

    Raises:
        InputError: a name is unknown.
    """
    found = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip())) if names else list(known)
    unknown = [name for name in found if name not in known]
    if unknown or not found:
        raise InputError(f"--models: no {what} is named '{', '.join(unknown)}'. There are: {', '.join(known)}")
    return found


def run(work: Callable[[], Result], show: Callable[[Result, Console], int | None], *, unwind: bool = True) -> int:
    """Do a command's work, with what its stages say on the console, and show what came out.

    Args:
        work: runs the flow.
        show: prints its result; may give an exit code.
        unwind: whether a SIGTERM ends the flow like an error, so that runs are closed; where threads work it would wait for them.

    Returns:
        The exit code: 0 ended well, 1 a fault, 2 refused input.
    """
    from tasks.progress import shown_on

    console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    if unwind:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with shown_on(console):
            result = work()
        code = show(result, console) or 0
        flush()
    except Exception as error:
        return refused(plainly(error), errors)
    return code


def plainly(error: Exception) -> NightloomError:
    """The error itself where it was raised on purpose, or a full or read-only disk as what is behind it; raises all others again."""
    if isinstance(error, InputError):
        return error
    prefect = [Path(os.environ["PREFECT_HOME"])] if "PREFECT_HOME" in os.environ else []
    if said := command_trouble(error, root(), prefect):
        return InputError(said)
    if isinstance(error, NightloomError):
        return error
    raise error


def refused(error: NightloomError, console: Console) -> int:
    """Say why a command ended; gives its exit code."""
    console.print(f"{type(error).__name__}: {error}", markup=False, style="red", soft_wrap=True)
    return error.exit_code


def show_table(found: dict[str, Any], console: Console) -> None:
    """Print a flow's `table`, and the `folder` of what else it wrote."""
    console.print(found["table"], markup=False, soft_wrap=True)
    console.print(f"Plot and figures: {found['folder']}", soft_wrap=True)
