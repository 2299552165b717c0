"""Nights that end themselves by SIGKILL at a named place: `python -m tests.recovery.killed --config mine.yaml`.

Each line of its input is a place and a file, with a tab between: a night is killed there that says what it says in that file, and its exit
code is written. Each is a process of its own, forked when everything is imported, which takes longer than most of them live. A place that
is not reached lets the night end as always.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows.command import before_prefect, parser

STAGES = ("validate", "prepare", "load_pretrained", "fine_tune", "explain", "evaluate", "promote")
"""In the order of a night: a place is not reached in a stage that a killed night has finished."""
MOMENTS = ("begun", "made", "kept", "half published")
"""Of a stage: its folder is there and empty; its files are there without a manifest; it is finished here; some of its files are in the
store, and their index is not. Nobody looks for a night's own promotion there."""
AROUND = ("before collect", "after collect", "before the report", "before latest", "after latest")
WRITES = (
    "create_registered_model",
    "create_model_version",
    "set_registered_model_alias",
    "delete_registered_model_alias",
    "set_registered_model_tag",
)
"""Of MLflow's client: how the registry is changed."""


BEGUN = '"act": "begun"'
"""In the note that a process begins to move the aliases."""


def die(*_: Any, **__: Any) -> None:
    """End this process as if it was killed from outside."""
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str, holds: Callable[..., bool] = lambda *_, **__: True, *, after: bool = False) -> None:
    """Die before, or right after, a call for which a condition holds."""
    real = getattr(owner, name)

    def call(*args: Any, **named: Any) -> Any:
        hit = holds(*args, **named)
        if hit and not after:
            die()
        result = real(*args, **named)
        if hit:
            die()
        return result

    setattr(owner, name, call)


def place_kill(where: str) -> None:
    """Put the kill where it is wanted."""
    from nightloom.promotion.registry import Registry
    from nightloom.runs import nights, stages
    from nightloom.runs.storage import Storage

    stage, _, moment = where.partition(": ")
    if where == "before collect":
        import tasks.collect

        before(tasks.collect, "read_sources")
    elif where == "after collect":
        before(Storage, "publish", lambda _, place, **__: place.startswith("snapshots/"), after=True)
    elif where == "before the report":
        import tasks.report

        before(tasks.report, "build_report")
    elif where == "before latest":
        before(nights, "_point_at")
    elif where == "after latest":
        before(nights, "_point_at", after=True)
    elif moment == "begun":
        before(Path, "mkdir", lambda path, *_, **__: path.parent.name == stage and path.name.endswith(".partial"), after=True)
    elif moment == "made":
        before(stages, "files_in", lambda folder: folder.parent.name == stage and folder.name.endswith(".partial"))
    elif moment == "kept":
        before(Storage, "publish", lambda _, place, **__: f"/{stage}/" in place)
    elif moment == "half published":
        before(Storage, "write_json", lambda _, place, __: f"/{stage}/" in place)
    elif stage == "after write":
        kill_after_write(Registry, int(moment))
    elif where == "after a step":
        kill_after_write(Registry, 1, notes=False)
    else:
        raise SystemExit(f"no place is named {where!r}")


def kill_after_write(registry: Any, number: int, *, notes: bool = True) -> None:
    """Die after the registry's write of a number, counted from 1 over all that is written.

    Args:
        registry: the class.
        number: which.
        notes: whether the note that a move has begun counts, too; each process makes its own.
    """
    real, count = registry.__init__, [0]

    def made(self: Any, *args: Any, **named: Any) -> None:
        real(self, *args, **named)
        for name in WRITES:
            write = getattr(self.client, name)

            def counted(*args: Any, write: Any = write, **named: Any) -> Any:
                result = write(*args, **named)
                count[0] += notes or BEGUN not in str(args)
                if count[0] == number:
                    die()
                return result

            setattr(self.client, name, counted)

    registry.__init__ = made


def forked(where: str, log: str) -> int:
    """The exit code of a night in a process of its own, which has been imported already; what it says is in a file."""
    child = os.fork()
    if child == 0:
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        place_kill(where)
        sys.exit(flows.nightly.main(given))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    command = parser("nightly", "One night.")
    given = before_prefect("__main__", command)
    given.as_of, given.force = None, False
    import flows.nightly

    for line in sys.stdin:
        sys.stdout.write(f"{forked(*line.rstrip().split(chr(9)))}\n")
        sys.stdout.flush()
