"""The job's side of training on a Ray cluster: Ray Train places the workers on the nodes and starts them again when one is lost."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nightloom.core.errors import InputError, NightloomError, TrainingError
from nightloom.core.files import write_json
from nightloom.training.launch import MAX_RESTARTS

if TYPE_CHECKING:
    from nightloom.training.run_json import Run

CAPACITY_SECONDS = 300.0
"""For so long the cluster may have too few CPUs: an autoscaler needs minutes, and so does a lost node's successor."""
LEASE_SECONDS = 300.0
"""After so long without a word of its night a job ends. A night that is started again meanwhile takes it over."""
BLIND = "the Ray node"
"""How the message of a node begins that does not see the folder of runs."""
LOOK_SECONDS = 2.0
SCRATCH, REFUSED = "ray", "refused.json"
"""Folder under the run's own for Ray Train's notes, which all nodes see, and the file in it that says why a worker gave up."""


def run_on_ray(run: Run, config: Path, workers: int, beat: Path | None) -> None:
    """Train with workers on the nodes of the cluster that this process is a job of.

    Args:
        run: what to train.
        config: run.json.
        workers: processes; at most one a GPU where the cluster has GPUs.
        beat: file that the night rewrites; the job ends when it no longer does. None: nobody is waited for.

    Raises:
        NightloomError: the workers refused what they were given, or failed for good.
    """
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    ray.init(address="auto", logging_level="WARNING")
    gpus = int(ray.cluster_resources().get("GPU", 0))
    workers = min(workers, gpus) if gpus else workers
    scratch = run.out / SCRATCH
    _watch(TooSmall(workers, "GPU" if gpus else "CPU"), run.out)
    if beat is not None:
        _watch(LeftAlone(beat), run.out)
    trainer = TorchTrainer(
        _work,
        train_loop_config={"config": str(config.resolve())},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=bool(gpus)),
        run_config=RunConfig(name="train", storage_path=str(scratch), failure_config=FailureConfig(max_failures=MAX_RESTARTS)),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        if said := re.search(f"{BLIND}.*", str(error)):  # such a node could not write a refusal
            raise InputError(said[0]) from error
        raise (refusal(run.out) or TrainingError(str(error))) from error
    shutil.rmtree(scratch, ignore_errors=True)


def _work(settings: dict[str, Any]) -> None:
    """Be one worker; Ray Train has made the process group already."""
    import ray

    from nightloom.training.distributed import ready_world
    from nightloom.training.run import Training
    from nightloom.training.run_json import Run

    config = Path(settings["config"])
    if not config.is_file():
        node = ray.util.get_node_ip_address()
        raise InputError(f"{BLIND} {node} does not see {config}. Put NIGHTLOOM_ROOT on a folder that all nodes share under one path.")
    run = Run.load(config)
    with refusals(run.out):
        here = ready_world()
        Training(run, here)()
        here.wait()


@contextmanager
def refusals(out: Path) -> Iterator[None]:
    """Keep what an error inside says, for those that only see that a process of the cluster failed."""
    try:
        yield
    except NightloomError as error:
        _keep(out, error)
        raise


def _keep(out: Path, error: NightloomError) -> None:
    (out / SCRATCH).mkdir(parents=True, exist_ok=True)
    write_json(out / SCRATCH / REFUSED, {"code": error.exit_code, "words": str(error)})


def refusal(out: Path) -> NightloomError | None:
    """What a process of the cluster gave up for; None where none has said."""
    path = out / SCRATCH / REFUSED
    if not path.is_file():
        return None
    said = json.loads(path.read_text(encoding="utf-8"))
    return (InputError if said["code"] == InputError.exit_code else TrainingError)(said["words"])


class TooSmall:
    """Whether the cluster has had too few CPUs, or GPUs, for too long. Ray itself would wait for ever.

    Args:
        workers: each needs one.
        kind: CPU or GPU.
        seconds: how long it may have fewer.
    """

    def __init__(self, workers: int, kind: str = "CPU", seconds: float = CAPACITY_SECONDS) -> None:
        self.workers, self.kind, self.seconds, self.enough = workers, kind, seconds, time.monotonic()

    def __call__(self) -> str | None:
        """Why the job should end; None while it should not."""
        import ray

        there = int(ray.cluster_resources().get(self.kind, 0))
        if there >= self.workers:
            self.enough = time.monotonic()
        if time.monotonic() - self.enough <= self.seconds:
            return None
        return (
            f"training.workers: {self.workers} workers need a {self.kind} each, and the Ray cluster has had {there} for {self.seconds:.0f} "
            "seconds. "
            "Lower training.workers, or add nodes to the cluster."
        )


class LeftAlone:
    """Whether the night that follows this job is gone: the file that it rewrites no longer changes.

    Clocks of machines differ, so what counts is when a change was seen here.

    Args:
        beat: the file.
        seconds: how long it may stay as it is.
    """

    def __init__(self, beat: Path, seconds: float = LEASE_SECONDS) -> None:
        self.beat, self.seconds, self.changed, self.last = beat, seconds, time.monotonic(), ""

    def __call__(self) -> str | None:
        """Why the job should end; None while it should not."""
        try:
            said = self.beat.read_text(encoding="utf-8")
        except OSError:
            said = self.last
        if said != self.last:
            self.last, self.changed = said, time.monotonic()
        if time.monotonic() - self.changed <= self.seconds:
            return None
        return f"the night that followed this job has not been heard of for {self.seconds:.0f} seconds. Start it again: it goes on."


def _watch(reason: Callable[[], str | None], out: Path) -> None:
    """End this process, and with it the job and its workers, once there is a reason to."""

    def look() -> None:
        while (words := reason()) is None:
            time.sleep(LOOK_SECONDS)
        sys.stderr.write(f"{words}\n")
        sys.stderr.flush()
        _keep(out, InputError(words))
        os._exit(InputError.exit_code)  # the main thread is inside Ray, which would go on waiting

    threading.Thread(target=look, daemon=True).start()
