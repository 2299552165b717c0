"""The second person's answer: after its report a night asks in Prefect's page, and promotes what waits where the answer is yes.

A run of its own inside the night's waits for the answer: a pause takes away a run's place in its deployment, and that one has none.

A wait that ends without an answer changes nothing: the champion stays, and `nightloom approve` can still promote what waits. That command
may also be quicker; then the night stops waiting.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import asdict, replace
from types import FrameType
from typing import Any, Literal
from uuid import UUID

from prefect import flow, get_run_logger, pause_flow_run, tags
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.exceptions import FlowPauseTimeout
from prefect.input import RunInput
from pydantic import Field

from nightloom.core.errors import InputError, NightloomError
from nightloom.core.markup import plain_markdown
from nightloom.core.shell import typed
from nightloom.promotion.registered import CHAMPION, Version
from nightloom.promotion.registry import HeldError, Registry
from nightloom.promotion.review import Answer, approve, decline, starter, waiting
from nightloom.runs.processes import this_process
from nightloom.runs.stages import Manifest, Night
from tasks.progress import PROCESS_LABEL, server_lost, tell

LOOK_SECONDS = 5
"""How often it is looked whether somebody has answered, here or by `nightloom approve`."""
NOBODY = "nobody"
MACHINES = frozenset({"SCHEDULE", "AUTOMATION", "DEPLOYMENT", "WORKER"})
"""Kinds of what starts a run in Prefect that are no person."""


class Approval(RunInput):
    """The form in Prefect's page."""

    decision: Literal["promote", "keep the champion", "later"] = Field(
        description="later: ends the wait, and changes nothing. `nightloom approve` can still promote it."
    )
    name: str = Field(min_length=1, max_length=100, description="Who says so. Whoever started this night by hand can not approve it.")


def who_started(said: str) -> str:
    """Who started this run by hand, as far as it is known: who says so, or whom Prefect knows; empty where nobody is known.

    Args:
        said: the flow's parameter.
    """
    context = FlowRunContext.get()
    by = context.flow_run.created_by if context and context.flow_run else None
    known = by.display_value if by and str(by.type).upper() not in MACHINES else None
    return said.strip() or known or ""


def asks(night: Night, report: Mapping[str, Any]) -> bool:
    """Whether a night asks: what it made waits, and there is a page to see that."""
    return report["outcome"] == "waits" and night.config.promotion.ask_hours > 0 and bool(os.environ.get("PREFECT_API_URL"))


def ask(night: Night, promoted: Manifest) -> Manifest | None:
    """Ask in Prefect's page whether what waits becomes champion, and do what is said.

    Args:
        night: the night, whose report is written.
        promoted: what stage promote left.

    Returns:
        The same with the answer and the versions after it; None where nobody answered in time.
    """
    registry, name, log = Registry(night.root), night.config.name, get_run_logger()
    ends, problem = time.monotonic() + night.config.promotion.ask_hours * 3600, ""
    while (version := _waits(registry, name)) is not None and time.monotonic() < ends:
        log.info(f"Version {version.version} waits for an answer in Prefect's page.", extra={"nightloom": True})
        try:
            said = _answer(registry, version, _question(version, problem), ends)
        except Exception as error:
            if not (isinstance(error, FlowPauseTimeout) or server_lost(error)):
                raise
            log.warning(f"Nobody could answer in Prefect's page: {type(error).__name__}. Version {version.version} still waits.")
            return None
        if said.decision == "later":
            break
        try:
            if said.decision == "promote":
                approve(registry, name, said.name, version.version)
            else:
                decline(registry, version, said.name)
        except HeldError as error:
            log.warning(str(error))
            return None
        except InputError as error:
            problem = str(error)
            log.warning(problem)
    answer = Answer.of(registry, name)
    if answer is None:
        return None
    return replace(promoted, figures={**promoted.figures, "answer": asdict(answer), "versions": registry.aliases(name)})


def _waits(registry: Registry, name: str) -> Version | None:
    return waiting(registry.versions(name), registry.aliases(name)[CHAMPION])


def _question(version: Version, problem: str) -> str:
    """What stands over the form, in Markdown; who started the night said the name, and the form is another person's."""
    by = starter(version)
    lines = [
        f"**{version.model}, version {version.version}**, passed its gate. Shall it become champion?",
        f"The night's report is among this run's artifacts. The same by command: `{typed('nightloom', 'approve', version.name)}`",
    ]
    lines += [f"{plain_markdown(by)} started this night, so another person approves it."] if by else []
    return "\n\n".join([f"**{plain_markdown(problem)}**", *lines] if problem else lines)


def _answer(registry: Registry, version: Version, question: str, ends: float) -> Approval:
    """What is said to one question, in a run of its own that is paused until then."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        raise NightloomError("a night asks in Prefect's page only as a run of Prefect's.")
    night = context.flow_run.id

    @flow(name="approval", flow_run_name=f"{version.name} version {version.version} waits for an answer", persist_result=False)
    def approval() -> Approval:
        run = FlowRunContext.get().flow_run.id  # type: ignore[union-attr]
        tell(_label, run)
        with _ended_in_time(registry, version, ends, night, run):
            said: Approval = pause_flow_run(
                wait_for_input=Approval.with_initial_data(description=question),
                timeout=int(ends - time.monotonic()) + 3600,  # past its own time-out Prefect fails a run; this one ends its wait itself
                poll_interval=LOOK_SECONDS,
            )
        return said

    with tags(f"name:{version.name}"):
        return approval()


def _label(run: UUID) -> None:
    """Say which process a run has, by which `flows.dead_runs` knows one that was killed."""
    with get_client(sync_client=True) as client:
        client.update_flow_run_labels(run, {PROCESS_LABEL: this_process()})


@contextmanager
def _ended_in_time(registry: Registry, version: Version, ends: float, night: UUID, run: UUID) -> Iterator[None]:
    """End the pause in the block when its time is up, or the version does not wait any more; cancelled it ends as by Ctrl-C.

    Args:
        registry: where the version waits.
        version: which.
        ends: when, by the monotonic clock.
        night: the night's run, which may be cancelled.
        run: the one that is paused, which may be, too.
    """
    done, cancelled, waits = threading.Event(), threading.Event(), threading.get_ident()

    def watch() -> None:
        while not done.wait(LOOK_SECONDS):
            with suppress(Exception):  # a server that does not answer now may do so later; the wait itself says what it meets
                now = _waits(registry, version.name)
                with get_client(sync_client=True) as client:
                    states = [client.read_flow_run(one).state for one in (night, run)]
                    if any(state and (state.is_cancelling() or state.is_final()) for state in states):
                        cancelled.set()
                        signal.pthread_kill(waits, signal.SIGINT)  # the pause looks for an answer alone
                        return
                    if time.monotonic() >= ends or now is None or now.version != version.version:
                        client.resume_flow_run(run, run_input={"decision": "later", "name": NOBODY})

    # With the context: Prefect's settings are in it.
    thread = threading.Thread(target=copy_context().run, args=(watch,), name="approval-time", daemon=True)
    thread.start()
    try:
        with _heard(cancelled):
            yield
    finally:
        done.set()
        thread.join()


@contextmanager
def _heard(cancelled: threading.Event) -> Iterator[None]:
    """Have SIGINT end the block once it is cancelled, also where a person's Ctrl-C is ignored, as in the background of a script."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        yield
        return

    def hear(number: int, frame: FrameType | None) -> None:
        if cancelled.is_set():
            signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
