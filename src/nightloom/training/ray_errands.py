"""Errands: modules of Nightloom that run on any node of a Ray cluster with a CPU free, one job each, several at once."""

from __future__ import annotations

import hashlib
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from nightloom.core.errors import TrainingError
from nightloom.training import ray_job
from nightloom.training.launch import MAX_RESTARTS
from nightloom.training.ray_job import Patience, answering, stop, submit

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

NEVER_STARTED = "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"
"""What Ray calls the fault of a job for which no CPU was free in 15 minutes (RAY_JOB_START_TIMEOUT_SECONDS)."""
FOUND = "what is done is found"


@dataclass(frozen=True)
class Errand:
    """What a job is given.

    Attributes:
        argument: a file; all nodes see it, and what it names, under this path.
        log: file for what the job prints.
        progress: called with each of its lines.
    """

    argument: Path
    log: Path
    progress: Callable[[str], None]


def run_errands(module: str, errands: Sequence[Errand], at_once: int = 1) -> tuple[int, Path]:
    """Run `python -m MODULE ARGUMENT` for each errand, on the nodes of the cluster.

    Jobs that a killed run left for arguments in the same folder are stopped first. One that finds no free CPU in Ray's time waits on as a
    new job; one that is lost with its node is handed in again, as often as a worker of training is. On any exception here all are stopped.

    Args:
        module: of Nightloom.
        errands: what each job is given; their arguments lie in one folder.
        at_once: most jobs that are handed in at once.

    Returns:
        Exit code and log of the first that failed, whereupon the others are stopped; 0 and the last log where none did.

    Raises:
        InputError: Ray is not installed, or no cluster is named.
        TrainingError: the cluster can not be reached, or loses a job again and again.
    """
    client, waiting, running, lost = ray_job.connect(), deque(range(len(errands))), dict[int, _Heard](), Counter[int]()
    with answering(FOUND):
        stop_left(client, errands[0].argument.resolve().parent)
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                at = waiting.popleft()
                running[at] = _Heard(client, _hand_in(client, module, errands[at].argument), errands[at])
            time.sleep(ray_job.POLL_SECONDS)
            for at, heard in list(running.items()):
                if (said := heard.look()) is None:
                    continue
                del running[at]
                if said.error_type == NEVER_STARTED:
                    waiting.append(at)
                elif said.status != "SUCCEEDED" and said.driver_exit_code is None:
                    lost[at] += 1
                    if said.status == "STOPPED" or lost[at] > MAX_RESTARTS:
                        what = "stopped in Ray" if said.status == "STOPPED" else "lost"
                        raise TrainingError(f"the Ray job {heard.job} was {what}. {said.message or ''} Start again: {FOUND}.")
                    waiting.append(at)
                elif said.status != "SUCCEEDED":
                    return int(said.driver_exit_code or 0), errands[at].log
        return 0, errands[-1].log
    finally:
        for heard in running.values():
            stop(client, heard.job)


def stop_left(client: JobSubmissionClient, folder: Path) -> None:
    """Stop the jobs whose argument lies in a folder."""
    for job in client.list_jobs():
        argument = (job.metadata or {}).get("ran")
        if argument and Path(argument).parent == folder and not job.status.is_terminal() and job.submission_id:
            stop(client, job.submission_id)


def _hand_in(client: JobSubmissionClient, module: str, argument: Path) -> str:
    path = str(argument.resolve())
    key = hashlib.sha256(f"{module} {path}".encode()).hexdigest()[:16]
    with answering(FOUND):
        return submit(client, [module, path], key, {"ran": path}, cpus=1)


@dataclass
class _Heard:
    """A job whose lines are written and told until it ends."""

    client: JobSubmissionClient
    job: str
    errand: Errand
    seen: int = 0
    patience: Patience = field(default_factory=lambda: Patience(FOUND))

    def look(self) -> JobDetails | None:
        """What Ray says of it in the end; None where it still runs, or the cluster does not answer."""
        answer = self.patience.ask(self._ask)
        if answer is None:
            return None
        said, text = answer
        if text is None:
            return said
        ended = said.status.is_terminal()
        self.errand.log.write_text(text, encoding="utf-8")
        lines = text.splitlines() if ended else text.splitlines()[:-1]  # the last may be cut short
        for line in lines[self.seen :]:
            self.errand.progress(line)
        self.seen = max(self.seen, len(lines))
        return said if ended else None

    def _ask(self) -> tuple[JobDetails, str | None]:
        said = self.client.get_job_info(self.job)
        lost = said.status.is_terminal() and said.driver_exit_code is None  # its node may be gone, and the log with it
        return said, None if lost else self.client.get_job_logs(self.job)
