"""What every flow that is run as a command shares: its arguments, what has to be set before Prefect is imported, its exit code."""

from __future__ import annotations

import difflib
import logging
import os
import signal
import sys
import threading
import urllib.error
import urllib.request
import warnings
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from rich.console import Console

from flows.orphans import end_orphans, end_own
from nightloom.config import load_config, load_preset
from nightloom.core.disk import command_trouble, flush, no_writing, writable
from nightloom.core.errors import InputError, NightloomError, RenamedWarning
from nightloom.core.secrets import hidden, hide_in_logs, public
from nightloom.core.shell import typed
from nightloom.core.streams import any_encoding
from nightloom.runs.environment import telemetry_off

AGAIN_SECONDS = 0.05
"""After how long a signal that was swallowed is sent again."""

Result = TypeVar("Result")
ANSWER_SECONDS = 10.0
"""How long Prefect's server may take to say that it is there."""
_ended: list[Any] = []
Check = Callable[[Namespace], None]
"""Refuses what argparse can not, by an InputError; it may change what was given."""


def day(text: str) -> date:
    """A day of the command line."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ArgumentTypeError(f"'{text}' is no day. Write it as 2026-11-01.") from None


class _Parser(ArgumentParser):
    """Says of a misspelt option which one may be meant."""

    def error(self, message: str) -> NoReturn:
        """End the process with exit code 2."""
        options = [one for one in self._option_string_actions if one.startswith("--")]
        typed_in = [one.partition("=")[0] for one in sys.argv[1:] if one.startswith("--")]
        wrong = [one for one in typed_in if not any(option.startswith(one) for option in options)]
        near = {one: found[0] for one in wrong if (found := difflib.get_close_matches(one, options, n=1))}
        hints = "".join(f"\n{one}: did you mean {option}?" for one, option in near.items())
        super().error(hidden(message) + hints)


def parser(flow: str, about: str, *, config: bool = True) -> ArgumentParser:
    """A flow's arguments: `--set`, and where its config is.

    Args:
        flow: the file's name in flows/.
        about: what the command does, in a line.
        config: whether there is one config, named by `--preset` or `--config`.
    """
    made = _Parser(prog=typed("python", "-m", f"flows.{flow}"), description=about)
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


def before_prefect(module: str, command: ArgumentParser, check: Check = lambda _: None, *, server: bool = True) -> Namespace:
    """Prepare for the import of Prefect, which takes seconds: a flow that is run as a command reads its arguments first.

    Telemetry is switched off, which Prefect reads when it is imported, and no log gets credentials. A command's console shows what
    stages say; Prefect's own lines stay in its log, its database lies beside the runs. A flow that Prefect runs takes its settings
    from there.

    Args:
        module: the flow's `__name__`.
        command: the flow's arguments.
        check: what else is checked.
        server: whether the command needs Prefect's server, which has to answer then where PREFECT_API_URL names one.

    Returns:
        As `parsed`; nothing where the flow is imported.
    """
    telemetry_off()
    hide_in_logs()
    os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "nightloom")  # its warnings belong to the run's log
    if module != "__main__":
        return Namespace()
    any_encoding()
    logging.raiseExceptions = False  # a log that can not be written, to a lost server for example, prints no traceback
    if not sys.warnoptions:  # whoever sets PYTHONWARNINGS sees those of the libraries too
        warnings.simplefilter("ignore")
        warnings.simplefilter("default", RenamedWarning)
    given = parsed(command, check)
    if server and os.environ.get("PREFECT_API_URL"):
        try:
            answering(os.environ["PREFECT_API_URL"])
        except NightloomError as error:
            sys.exit(refused(error, Console(stderr=True, highlight=False)))
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_INTERNAL_LOGGING_LEVEL", "CRITICAL")  # else each event that a lost server does not get, in full
    os.environ.setdefault("PREFECT_HOME", str((root() / "prefect").resolve()))
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    try:  # a Prefect that can not write its database is waited for until the time-out above
        for folder in (root(), Path(os.environ["PREFECT_HOME"])):
            writable(folder)
    except InputError as error:
        sys.exit(refused(error, Console(stderr=True, highlight=False)))
    end_orphans()
    return given


def answering(address: str) -> None:
    """Make sure that Prefect's server answers.

    Args:
        address: as in PREFECT_API_URL.

    Raises:
        NightloomError: it does not, with what to do.
    """
    try:
        # Whoever it answers, even with a refusal, it is there; a name and password in the address are for Prefect itself.
        urllib.request.urlopen(f"{public(address).rstrip('/')}/health", timeout=ANSWER_SECONDS).close()
    except urllib.error.HTTPError:
        return
    except (OSError, ValueError, HTTPException) as error:
        raise NightloomError(
            f"Prefect's server at {hidden(address) or 'PREFECT_API_URL, which is empty,'} does not answer ({hidden(str(error))}). Start it "
            "with `make ui` or the units in deployment/systemd/, or set PREFECT_API_URL to its address. Without that variable a night "
            "starts a server for itself."
        ) from None


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
    from flows.dead_runs import cancel_dead_runs
    from tasks.progress import server_lost, shown_on

    console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    if unwind:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.unraisablehook = SwallowedSignals(sys.unraisablehook)
    sys.excepthook = partial(_uncaught, sys.excepthook, errors)
    try:
        if os.environ.get("PREFECT_API_URL"):
            cancel_dead_runs()
        with shown_on(console):
            result = work()
        code = show(result, console) or 0
        flush()
    except Exception as error:
        lost = not isinstance(error, NightloomError) and server_lost(error)
        if lost and _ended:
            _server_lost(error, errors)
            _leave(show(_ended.pop(), console) or 0)
        ours = _ours(error) if lost else None
        try:
            why = plainly(ours or error)
        except Exception:
            if not lost:
                raise
            _server_lost(error, errors)
            _leave(1)
        if why is ours and not _server_can_not_write():  # else the disk is why, of which one line is enough
            _server_lost(error, errors)
        if lost or _server_can_not_write():
            _leave(refused(why, errors))
        return refused(why, errors)
    return code


def _uncaught(before: Callable[..., Any], console: Console, kind: type[BaseException], error: BaseException, *trace: Any) -> None:
    """Say of a Ctrl-C what it means (`sys.excepthook`); the process ends by the signal all the same."""
    if issubclass(kind, KeyboardInterrupt):
        console.print("Cancelled. Started again, it goes on from what is done.")
    else:
        before(kind, error, *trace)


def _server_lost(error: Exception, console: Console) -> None:
    said = f"Prefect's server does not answer any more ({type(error).__name__}): its page does not show the end."
    console.print(said, markup=False, soft_wrap=True)


def _server_can_not_write() -> bool:
    """Whether this command's temporary server can tell no end, since the disk of its database has turned read-only."""
    return "PREFECT_API_URL" not in os.environ and "PREFECT_HOME" in os.environ and no_writing(Path(os.environ["PREFECT_HOME"])) is not None


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


class SwallowedSignals:
    """Sends a signal again whose exception was swallowed, as Python does in destructors and in the callbacks of weak references.

    Args:
        before: what hears of all other exceptions that can not be raised.
    """

    def __init__(self, before: Callable[[sys.UnraisableHookArgs], Any]) -> None:
        self.before = before
        self.again: threading.Timer | None = None

    def __call__(self, swallowed: sys.UnraisableHookArgs) -> None:
        """Hear of an exception that could not be raised (`sys.unraisablehook`)."""
        number = _signal_of(swallowed.exc_value)
        if number is None:
            self.before(swallowed)
        elif self.again is None or not self.again.is_alive():  # one at a time: a second would cut off what the first one ends
            # A little later and from another thread, since an exception that is raised in here would be swallowed too.
            main = threading.main_thread().ident or 0
            self.again = threading.Timer(AGAIN_SECONDS, signal.pthread_kill, (main, number))
            self.again.daemon = True
            self.again.start()


def _signal_of(error: BaseException | None) -> int | None:
    """The signal that an exception stands for; None where it is another one."""
    if isinstance(error, SystemExit) and error.code == 128 + signal.SIGTERM:
        return signal.SIGTERM
    if isinstance(error, KeyboardInterrupt):
        return signal.SIGINT
    return None if isinstance(error, Exception) else getattr(error, "signal", None)  # Prefect's TerminationSignal has it


def ends_with(result: Result) -> Result:
    """Remember what a flow gives back, for the case that Prefect's server is gone when it is told; gives it back."""
    _ended[:] = [result]
    return result


def _leave(code: int) -> NoReturn:
    """End the process at once: at its ordinary end Prefect would try to send each event for seconds, one after the other."""
    end_own()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _ours(error: BaseException | None) -> NightloomError | None:
    """The error of ours that was being handled when another was raised."""
    while error is not None and not isinstance(error, NightloomError):
        error = error.__context__
    return error


def refused(error: NightloomError, console: Console) -> int:
    """Say why a command ended; gives its exit code."""
    console.print(hidden(f"{type(error).__name__}: {error}"), markup=False, style="red", soft_wrap=True)
    return error.exit_code


def show_table(found: dict[str, Any], console: Console) -> None:
    """Print a flow's `table`, and the `folder` of what else it wrote."""
    console.print(found["table"], markup=False, soft_wrap=True)
    console.print(f"Plot and figures: {found['folder']}", soft_wrap=True)
