"""What a stage says while it works: to Prefect's log, page and artifacts, and to the terminal."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Self, TypeVar
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from nightloom.core.errors import NightloomError
from nightloom.runs.processes import this_process
from nightloom.runs.stages import Manifest, Night

QUIET_SECONDS = 10.0
"""Without a terminal, a bar becomes a line this often."""
SILENT_SECONDS = 300.0
"""For so long nothing is said to a server that did not answer."""
PROCESS_LABEL = "nightloom.process"
"""Label of a flow run: host, number and start of its process, as `nightloom.runs.processes` writes them."""
UNREACHED = ("Failed to reach API", "ephemeral Prefect API server")
"""In what Prefect raises where a server is not reached, or its temporary one does not start in time."""
Told = TypeVar("Told")
_TAG: ContextVar[str] = ContextVar("_TAG", default="")
_silent_until = 0.0


@contextmanager
def named_after(tag: str) -> Iterator[None]:
    """Give a tag to the run that is started in the block."""
    before = _TAG.set(tag)
    try:
        yield
    finally:
        _TAG.reset(before)


def server_lost(error: BaseException) -> bool:
    """Whether an error says that Prefect's server can not be reached, or fails itself."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500
    return isinstance(error, httpx.TransportError) or any(words in str(error) for words in UNREACHED)


def tell(what: Callable[..., Told], *args: Any, **named: Any) -> Told | None:
    """Have Prefect show something; a server that does not answer ends no night.

    Each try takes a minute, so for the next minutes nothing more is said to it.

    Args:
        what: the function of Prefect's that asks the server.
        args: its arguments.
        named: its named arguments.

    Returns:
        What it gives; None where the server does not answer.
    """
    global _silent_until
    if time.monotonic() < _silent_until:
        return None
    try:
        return what(*args, **named)
    except Exception as error:
        if not server_lost(error):
            raise
        _silent_until = time.monotonic() + SILENT_SECONDS
        said = f"Prefect's server does not answer ({type(error).__name__}): its page does not show what goes on"
        logging.getLogger("prefect.task_runs").warning(said, extra={"nightloom": True, "send_to_api": False})
        return None


def name_run(night: Night, outcome: str | None = None) -> None:
    """Name Prefect's run after recommender and night, and tag it with the recommender and what became of it.

    Tags that the run has already stay. It is labelled with this process, by which `flows.dead_runs` knows one that was killed. Outside
    a run nothing happens.

    Args:
        night: the night that runs.
        outcome: as in the report, or unchanged; None while that is not known.
    """
    if flow_run.id is None:
        return
    tell(_name_run, UUID(flow_run.id), night, outcome)


def _name_run(run: UUID, night: Night, outcome: str | None) -> None:
    more = {_TAG.get(), f"outcome:{outcome}" if outcome else ""} - {""}
    tags = sorted({*flow_run.tags, f"name:{night.config.name}", *more})
    with get_client(sync_client=True) as client:
        named = f"{night.config.name} as of {night.as_of}" if night.as_of else f"{night.config.name} {night.night}"
        client.update_flow_run(run, name=named, tags=tags)
        client.update_flow_run_labels(run, {PROCESS_LABEL: this_process()})


class ProgressBar:
    """A progress artifact of Prefect's, from 0 to 100 %.

    It only shows what goes on. A server that does not answer ends no training.

    Args:
        key: of the artifact.
        title: what is worked on.
    """

    def __init__(self, key: str, title: str) -> None:
        self.key, self.title = key, title
        self.reached = 0.0
        self._id: UUID | None = None

    def __enter__(self) -> Self:
        made: Any = tell(create_progress_artifact, 0.0, key=self.key, description=self.title)
        self._id = made
        return self

    def update(self, fraction: float, said: str) -> None:
        """Move on; the bar never goes back.

        Args:
            fraction: share that is done, 0 to 1.
            said: what was done last.
        """
        self.reached = max(self.reached, fraction)
        if self._id is not None:
            tell(update_progress_artifact, self._id, round(100 * self.reached, 1), f"{self.title}: {said}")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.update(1.0, "done")


def report_progress(message: str, fraction: float | None = None) -> None:
    """Log what is going on.

    Args:
        message: one line.
        fraction: share of the stage's work that is done, 0 to 1, where it is known.
    """
    get_run_logger().info(message, extra={"nightloom": True, "fraction": fraction})


def log_done(manifest: Manifest, words: str) -> Manifest:
    """Log that a stage is done, with its time; gives the manifest back."""
    how = "found finished" if manifest.status == "reused" else f"{manifest.seconds:.1f} s, {manifest.peak_mb:,.0f} MB"
    get_run_logger().info(f"{manifest.stage}: {words} ({how})", extra={"nightloom": True, "stage": manifest.stage})
    return manifest


def artifact_key(*names: str) -> str:
    """A key that Prefect takes for an artifact: lower-case letters, digits and dashes, whatever the names hold."""
    return re.sub("[^a-z0-9-]", "-", "-".join(names).lower())


def worth_retrying(_task: Any, _run: Any, state: Any) -> bool:
    """Prefect's retry condition: refused input and failed training fail again, so they are not retried."""
    error = state.data if isinstance(state.data, BaseException) else getattr(state.data, "exception", None)
    return not isinstance(error, NightloomError)


class Terminal(logging.Handler):
    """Shows what stages report: a line for each finished stage and a bar for the one that runs."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self.console = console
        self.shown_at = 0.0
        self.bar: Progress | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Show one record of `report_progress` or `log_done`; all others are Prefect's own and stay in its log."""
        if not getattr(record, "nightloom", False):
            return
        message, fraction = record.getMessage(), getattr(record, "fraction", None)
        if getattr(record, "stage", None):
            self.close()
            mark = "✓" if self.console.encoding.lower().startswith("utf") else "done:"
            self.console.print(Text.assemble((mark, "green"), f" {message}"), highlight=False, soft_wrap=True)
        elif fraction is None:
            self.console.print(f"  {message}", style="dim", markup=False, highlight=False, soft_wrap=True)
        elif self.console.is_terminal:
            self._advance(message, fraction)
        elif time.monotonic() - self.shown_at > QUIET_SECONDS:
            self.shown_at = time.monotonic()
            self.console.print(f"  {message}", markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def _advance(self, message: str, fraction: float) -> None:
        if self.bar is None:
            columns = (BarColumn(24), TextColumn("{task.description}"), TimeElapsedColumn())
            self.bar = Progress(*columns, console=self.console, transient=True)
            self.bar.add_task(message, total=1.0)
            self.bar.start()
        self.bar.update(self.bar.task_ids[0], completed=fraction, description=message)


@contextmanager
def shown_on(console: Console) -> Iterator[None]:
    """Show what stages report on a console while the block runs."""
    handler, loggers = Terminal(console), [logging.getLogger(name) for name in ("prefect.task_runs", "nightloom")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        handler.close()
        for logger in loggers:
            logger.removeHandler(handler)
