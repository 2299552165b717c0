"""Starting training workers in a process group of their own, and never leaving one behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nightloom.core.disk import trouble
from nightloom.core.errors import InputError, TrainingError
from nightloom.core.threads import cores
from nightloom.runs.environment import SWITCHES
from nightloom.training.at_once import AtOnce

POLL_SECONDS = 0.2
LOG_TAIL = 40
MAX_RESTARTS = 2
GRACE_SECONDS = 5.0
HERE = "127.0.0.1"
WORKERS_A_CORE, LEAST_ALLOWED = 4, 8
"""Workers beyond so many a core are refused; so many are allowed on any machine."""

Progress = Callable[[dict[str, Any]], None]


def launch(run_json: Path, workers: int, log: Path, on_epoch: Progress | None = None, beside: AtOnce[Any] | None = None) -> None:
    """Train in worker processes until they are done.

    The workers have a process group of their own. It is killed on any exception here (a cancel, Ctrl-C, a
    SIGTERM that was made an exception); when this process itself is killed, the kernel ends them.

    Args:
        run_json: what to train; see `nightloom.training.run.Run`.
        workers: processes; on a machine with GPUs at most one each.
        log: file for what the workers print.
        on_epoch: called with each line of `curves.jsonl` as it is written.
        beside: the trainings that it shares the cores with, and ends with.

    Raises:
        InputError: the workers refused what they were given, or there would be far more of them than cores.
        TrainingError: a worker failed, restarts included; holds the end of the log.
        Halted: those beside it are not gone on with.
    """
    check_crowd(workers)
    sharing = workers * (beside.most if beside else 1)
    curves = Path(json.loads(run_json.read_text(encoding="utf-8"))["out"]) / "curves.jsonl"
    curves.unlink(missing_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "nightloom.training",
        "--config",
        str(run_json),
        "--workers",
        str(workers),
        "--parent",
        str(os.getpid()),
    ]
    with log.open("ab") as output:
        began = output.tell()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, env=environment(sharing))
        try:
            seen = 0
            while True:
                try:
                    code = process.wait(POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    seen = report_epochs(curves, seen, on_epoch)
                    if beside is not None:
                        beside.check()
                    continue
                report_epochs(curves, seen, on_epoch)
                break
        finally:
            _kill_group(process)
    if code == 0:
        return
    with log.open("rb") as output:
        output.seek(began)
        tail = output.read().decode("utf-8", "replace").splitlines()[-LOG_TAIL:]
    if said := trouble(TrainingError("\n".join(tail)), run_json.parent):
        raise InputError(said)
    if code == InputError.exit_code:
        raise InputError("\n".join(tail))
    raise TrainingError(
        f"training failed (exit code {code}); started again on the same folder it goes on from its last checkpoint. The end of {log}:\n"
        + "\n".join(tail)
    )


def check_crowd(workers: int, at_once: int = 1) -> None:
    """Refuse far more processes than this machine has cores.

    Args:
        workers: of a training.
        at_once: trainings side by side.

    Raises:
        InputError: there would be far more.
    """
    if (all_ := workers * at_once) > max(LEAST_ALLOWED, WORKERS_A_CORE * (there := cores())):
        named = "training.workers" if at_once == 1 else f"--at-once {at_once}, training.workers {workers}"
        raise InputError(
            f"{named}: {all_} processes on {there} cores would only wait for each other and for memory. "
            f"One a core or GPU is enough; more than {WORKERS_A_CORE} a core are not started."
        )


def environment(workers: int) -> dict[str, str]:
    """Environment of workers on this machine: each has its share of the cores, and the package's folder to import from."""
    path = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    settings = worker_settings(max(1, cores() // workers))
    return os.environ | settings | {"PYTHONPATH": os.pathsep.join(filter(None, path))}


def worker_settings(threads: int) -> dict[str, str]:
    """Environment variables of a worker that were measured to pay."""
    return {
        "OMP_NUM_THREADS": str(threads),
        # Freed blocks stay with the process instead of going back to the kernel to be zeroed again. An epoch of
        # MovieLens-100K, one thread, in turn: 6.3 and 6.8 s without, 4.6 and 5.0 s with.
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": "20000000000",
        # bfloat16 products are compiled for their shapes and kept; there are some 500 (MovieLens-100K), and each costs about a
        # millisecond with AMX. With 64 kept an epoch compiles 730 of them anew, with 512 a few: 3.5 and 2.4 CPU
        # seconds; an epoch of MovieLens-1M at width 128 takes 1.16 and 1.33 GiB.
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "512",
        "LRU_CACHE_CAPACITY": "512",
        **{name: SWITCHES[name] for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "TOKENIZERS_PARALLELISM")},
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8",  # of their log, whatever the terminal has
    }


def run_workers(run_json: Path, workers: int) -> int:
    """Be torch.distributed.run with one machine's workers; returns 0, or the code of the worker that failed for good."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # not in __all__
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    # The store's server binds a free port and keeps it: a port that was looked up and closed could be taken by another program. Within a
    # process torchrun's store of the same port shares this server (multi_tenant).
    store = TCPStore(HERE, 0, is_master=True, wait_for_workers=False, multi_tenant=True)
    one_machine = ["--nnodes=1", f"--nproc-per-node={workers}", f"--master-addr={HERE}", f"--master-port={store.port}"]
    worker = ["-m", "nightloom.training", "--config", str(run_json), "--parent", str(os.getpid())]
    try:
        torchrun([*one_machine, f"--max-restarts={MAX_RESTARTS}", *worker])
    except ChildFailedError as error:
        return error.get_first_failure()[1].exitcode
    return 0


def report_epochs(curves: Path, seen: int, on_epoch: Progress | None) -> int:
    """Report whole new lines of the curves; returns how many have been reported.

    Lines are counted, not bytes: workers that are started again write the file anew, up to their checkpoint.
    """
    if on_epoch is None or not curves.exists():
        return seen
    text = curves.read_bytes()
    whole = text[: text.rfind(b"\n") + 1].splitlines()
    for line in whole[seen:]:
        on_epoch(json.loads(line))
    return max(seen, len(whole))


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """End the whole group: SIGTERM first, then SIGKILL; workers whose leader is gone are killed at once."""

    def send(number: int) -> None:
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return

    if process.poll() is None:
        send(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
    send(signal.SIGKILL)
    process.wait()
