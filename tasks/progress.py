"""What a stage says while it works: to Prefect's log and to the terminal, with a bar where the end is known."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect import get_run_logger
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from nightloom.core.errors import NightloomError
from nightloom.runs.stages import Manifest

QUIET_SECONDS = 10.0
"""Without a terminal, a bar becomes a line this often."""


def report_progress(message: str, fraction: float | None = None) -> None:
    """Say what is going on.

    Args:
        message: one line.
        fraction: share of the stage's work that is done, 0 to 1, where it is known.
    """
    get_run_logger().info(message, extra={"nightloom": True, "fraction": fraction})


def log_done(manifest: Manifest, words: str) -> Manifest:
    """Say that a stage is done, with its time, and hand the manifest on."""
    how = "found finished" if manifest.status == "reused" else f"{manifest.seconds:.1f} s, {manifest.peak_mb:,.0f} MB"
    get_run_logger().info(f"{manifest.stage}: {words} ({how})", extra={"nightloom": True, "stage": manifest.stage})
    return manifest


def artifact_key(*names: str) -> str:
    """A key that Prefect takes for an artifact, whatever the names are: it knows lower-case letters, digits and dashes alone."""
    return re.sub("[^a-z0-9-]", "-", "-".join(names).lower())


def worth_retrying(_task: Any, _run: Any, state: Any) -> bool:
    """Prefect's retry condition: refused input and failed training do not get better by trying again."""
    error = state.data if isinstance(state.data, BaseException) else getattr(state.data, "exception", None)
    return not isinstance(error, NightloomError)


class Terminal(logging.Handler):
    """Shows what stages tell: a line for each finished stage and a bar for the one that runs."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self.console = console
        self.said = 0.0
        self.bar: Progress | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Show one record of `tell` or `made`; all others are Prefect's own and stay in its log."""
        if not getattr(record, "nightloom", False):
            return
        message, fraction = record.getMessage(), getattr(record, "fraction", None)
        if getattr(record, "stage", None):
            self.close()
            self.console.print(f"[green]✓[/green] {message}", highlight=False, soft_wrap=True)
        elif fraction is None:
            self.console.print(f"  {message}", style="dim", highlight=False, soft_wrap=True)
        elif self.console.is_terminal:
            self._advance(message, fraction)
        elif time.monotonic() - self.said > QUIET_SECONDS:
            self.said = time.monotonic()
            self.console.print(f"  {message}", highlight=False, soft_wrap=True)

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
    """Show what stages tell on a console while the block runs."""
    handler, logger = Terminal(console), logging.getLogger("prefect.task_runs")
    logger.addHandler(handler)
    try:
        yield
    finally:
        handler.close()
        logger.removeHandler(handler)
