"""Training as a job of a Ray cluster: the night hands it in, follows it, and takes it back when the night is cancelled.

The cluster is the one that RAY_ADDRESS names. Its nodes have the same Python and packages, and see the folder of runs under the same
path. Nightloom's own code goes with the job, so every node trains with the code of the night.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shlex
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from nightloom.core.disk import trouble
from nightloom.core.errors import InputError, TrainingError
from nightloom.core.secrets import hidden
from nightloom.runs.environment import SWITCHES
from nightloom.training.at_once import AtOnce
from nightloom.training.launch import LOG_TAIL, MAX_RESTARTS, Progress, report_epochs, worker_settings
from nightloom.training.ray_workers import SCRATCH, refusal

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

ADDRESS = "RAY_ADDRESS"
POLL_SECONDS = 1.0
PATIENCE_SECONDS = 120.0
"""For so long a cluster may not answer before it counts as lost."""
BEAT_SECONDS = 5.0
"""So often a night says that it is there."""
STOP_SECONDS = 60.0
LOST = (RuntimeError, OSError)
"""What Ray's client raises where the cluster does not answer."""
BEAT = "night.beat"
"""File beside run.json that the night rewrites while it follows the job."""
CHECKPOINT = "the night goes on from its last checkpoint"
Found = TypeVar("Found")


def launch_on_ray(run_json: Path, workers: int, log: Path, on_epoch: Progress | None = None, beside: AtOnce[Any] | None = None) -> None:
    """Train as a job of the Ray cluster until it is done.

    A job that trains the same run is taken over: it belongs to a night that was killed. Otherwise one is handed in, and goes on from
    the last checkpoint where there is one. On any exception here (a cancel, Ctrl-C) the job is stopped. When this process is killed,
    the job misses its beat and ends by itself (see `nightloom.training.ray_workers.LeftAlone`).

    Args:
        run_json: what to train; see `nightloom.training.run.Run`. All nodes see it, and what it names, under this path.
        workers: processes, one a CPU of the cluster, or one a GPU.
        log: file for what the job prints.
        on_epoch: called with each line of `curves.jsonl` as it is written.
        beside: the trainings that it ends with.

    Raises:
        InputError: Ray is not installed, no cluster is named, or the job refused what it was given.
        TrainingError: the cluster can not be reached, or the job failed.
        Halted: those beside it are not gone on with.
    """
    client, key = connect(), _key(run_json, workers)
    out = Path(json.loads(run_json.read_text(encoding="utf-8"))["out"])
    curves = out / "curves.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    path, beat = str(run_json.resolve()), run_json.resolve().parent / BEAT
    seen = 0
    for attempt in range(MAX_RESTARTS + 1):
        with answering(CHECKPOINT):
            job = _running(client, key) if not attempt else None
        if job is None:
            curves.unlink(missing_ok=True)
            shutil.rmtree(out / SCRATCH, ignore_errors=True)
            beat.write_text("0", encoding="utf-8")
            with answering(CHECKPOINT):
                words = ["nightloom.training", "--config", path, "--launcher", "ray", "--workers", str(workers), "--beat", str(beat)]
                job = submit(client, words, key, {"run": path})
        follower = _Follower(client, job, log, curves, beat, on_epoch, beside, seen)
        ended, seen = follower(), follower.seen
        code = ended.driver_exit_code
        if ended.status == "SUCCEEDED":
            beat.unlink(missing_ok=True)
            return
        if ended.status == "STOPPED" or code in (1, InputError.exit_code):
            break  # somebody's wish, or our own word; anything else is a driver that was lost
    if said_so := refusal(out):
        raise said_so
    with answering(CHECKPOINT):
        tail = client.get_job_logs(job).splitlines()[-LOG_TAIL:]
    if said := trouble(TrainingError("\n".join(tail)), run_json.parent):
        raise InputError(said)
    if code == InputError.exit_code:  # before there was a folder to say it in
        raise InputError("\n".join(tail))
    why = "was stopped in Ray" if ended.status == "STOPPED" else f"failed (exit code {code})"
    raise TrainingError(
        f"the Ray job {job} {why}; started again, {CHECKPOINT}. {ended.message or ''}\nThe end of {log}:\n" + "\n".join(tail)
    )


def connect() -> JobSubmissionClient:
    """A connection to the cluster."""
    try:
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise InputError("training.launcher: ray needs the package ray. Run `pip install 'nightloom[ray]'`.") from error
    address = os.environ.get(ADDRESS, "")
    if not address:
        raise InputError(f"training.launcher: ray needs the address of a cluster. Set {ADDRESS}=http://HEAD:8265, the head's dashboard.")
    shown = hidden(address) if "://" in address else address.rpartition("@")[2]
    try:
        return JobSubmissionClient(address)
    except (*LOST, ValueError) as error:
        raise TrainingError(
            f"{ADDRESS}={shown}: no Ray cluster takes jobs there ({_first(error).replace(address, shown)}). Start it with "
            "`ray start --head`, or set the address of its dashboard (http://HEAD:8265)."
        ) from error


@contextlib.contextmanager
def answering(then: str) -> Iterator[None]:
    """What is asked of the cluster inside the block; one that does not answer is told in words, with what a new start does then."""
    try:
        yield
    except LOST as error:
        raise TrainingError(f"the Ray cluster does not answer ({_first(error)}). Start again when it is back: {then}.") from error


@dataclass
class Patience:
    """Asks a cluster again and again, which may be silent for a while.

    Attributes:
        then: what a new start does when the cluster is back.
    """

    then: str
    answered: float = field(default_factory=time.monotonic)

    def ask(self, question: Callable[[], Found]) -> Found | None:
        """The answer; None where there is none.

        Raises:
            TrainingError: there has been none for `PATIENCE_SECONDS`.
        """
        try:
            found = question()
        except LOST as error:
            if time.monotonic() - self.answered > PATIENCE_SECONDS:
                raise TrainingError(
                    f"the Ray cluster has not answered for {PATIENCE_SECONDS:.0f} seconds ({_first(error)}). "
                    f"Start again when it is back: {self.then}."
                ) from error
            return None
        self.answered = time.monotonic()
        return found


def _first(error: Exception) -> str:
    """The first line of what an error says, without what is secret in it."""
    return hidden(next(iter(str(error).splitlines()), type(error).__name__))


def _key(run_json: Path, workers: int) -> str:
    """What tells a run's job from all others: the place and content of run.json, and the number of workers."""
    return hashlib.sha256(f"{run_json.resolve()} {workers} {run_json.read_text(encoding='utf-8')}".encode()).hexdigest()[:16]


def _running(client: JobSubmissionClient, key: str) -> str | None:
    """The job that trains this run already."""
    found = (job for job in client.list_jobs() if (job.metadata or {}).get("nightloom") == key and not job.status.is_terminal())
    return next((job.submission_id for job in found), None)


def submit(client: JobSubmissionClient, words: Sequence[str], key: str, metadata: Mapping[str, str], cpus: int | None = None) -> str:
    """Hand `python -m ...` in as a job; returns its id.

    Args:
        client: the cluster.
        words: module and arguments.
        key: by which the job is found again.
        metadata: what else Ray keeps with it.
        cpus: that it needs; with None it runs on the head, and asks for CPUs itself.
    """
    package = Path(__file__).parents[1]
    python = f'"$(command -v {shlex.quote(sys.executable)} || echo python)"'  # the night's own, where the node has it
    return client.submit_job(
        entrypoint=f"{python} -m {shlex.join(words)}",
        submission_id=f"nightloom-{key}-{uuid4().hex[:8]}",
        metadata={"nightloom": key, **metadata},
        entrypoint_num_cpus=cpus,
        runtime_env={
            "py_modules": [str(package)],
            "excludes": ["__pycache__"],
            "env_vars": SWITCHES | worker_settings(1) | {"RAY_TRAIN_V2_ENABLED": "1", "RAY_DEDUP_LOGS": "0", "RAY_COLOR_PREFIX": "0"},
        },
    )


def stop(client: JobSubmissionClient, job: str) -> None:
    """Stop a job, and wait until it is."""
    end = time.monotonic() + STOP_SECONDS
    with contextlib.suppress(*LOST):
        client.stop_job(job)
        while not client.get_job_status(job).is_terminal() and time.monotonic() < end:
            time.sleep(POLL_SECONDS / 4)


@dataclass
class _Follower:
    """A job that is followed to its end: log, epochs, and the beat that keeps it alive."""

    client: JobSubmissionClient
    job: str
    log: Path
    curves: Path
    beat: Path
    on_epoch: Progress | None
    beside: AtOnce[Any] | None
    seen: int = 0
    """Epochs that were told, by earlier jobs of the run too."""

    def __call__(self) -> JobDetails:
        """Follow; returns what Ray says of the job in the end."""
        tail = threading.Thread(target=self._tail, daemon=True)
        tail.start()
        beats, next_beat, patience = 0, 0.0, Patience(CHECKPOINT)
        try:
            while True:
                if time.monotonic() >= next_beat:
                    beats, next_beat = beats + 1, time.monotonic() + BEAT_SECONDS
                    self.beat.write_text(f"{os.getpid()} {beats}", encoding="utf-8")
                said = patience.ask(lambda: self.client.get_job_info(self.job))
                if said is not None and said.status.is_terminal():
                    break
                self.seen = report_epochs(self.curves, self.seen, self.on_epoch)
                if self.beside is not None:
                    self.beside.check()
                time.sleep(POLL_SECONDS)
        except BaseException:
            stop(self.client, self.job)
            raise
        self.seen = report_epochs(self.curves, self.seen, self.on_epoch)
        tail.join(POLL_SECONDS * 10)
        return said

    def _tail(self) -> None:
        """Append what the job prints to the night's log; a broken connection is made anew, and what was read is skipped."""
        read = 0

        async def follow() -> None:
            nonlocal read
            passed = 0
            async for text in self.client.tail_job_logs(self.job):
                fresh = text[max(0, read - passed) :]
                passed += len(text)
                read = max(read, passed)
                with self.log.open("a", encoding="utf-8") as output:
                    output.write(fresh)

        while True:
            try:
                asyncio.run(follow())
                return
            except Exception:  # whatever the library behind the socket calls it; the job's end is seen by its status
                time.sleep(POLL_SECONDS)
                with contextlib.suppress(Exception):
                    if self.client.get_job_status(self.job).is_terminal():
                        return
