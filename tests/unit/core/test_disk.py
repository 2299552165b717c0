"""A full disk and a read-only folder: exit code 2, a message that says which and what to do, no traceback, nothing left behind."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nightloom.core import disk
from nightloom.core.disk import disk_of, trouble, writable
from nightloom.core.errors import InputError, TrainingError
from nightloom.core.files import write_text

REPOSITORY = Path(__file__).parents[3]
DROP_FROM_BOUNDING_SET, OVERRIDES = 24, (1, 2)
"""prctl's PR_CAPBSET_DROP, and the capabilities by which root reads and writes what it may not (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH)."""


def no_override() -> None:
    """Root is held to the rights of files like any user; others are so already."""
    for capability in OVERRIDES:
        ctypes.CDLL(None).prctl(DROP_FROM_BOUNDING_SET, capability, 0, 0, 0)


def small_files(limit: int) -> Callable[[], None]:
    """No file may grow over so many bytes."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def run(
    folder: Path, *arguments: str, limit: Callable[[], None], out: str | None = None, **settings: str
) -> subprocess.CompletedProcess[str]:
    env = (
        os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "src")]), "PYTHONDONTWRITEBYTECODE": "1"} | settings
    )
    with open(out or os.devnull, "w") as output:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=env,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=limit,
            check=False,
            timeout=200,
        )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a table and a config, and a folder `locked` that can not be written."""
    rows = [f"u{user},i{(user + step) % 7},{1_600_000_000 + 1000 * user + step}" for user in range(30) for step in range(5)]
    (tmp_path / "events.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]) + "\n")
    (tmp_path / "mine.yaml").write_text("name: mine\ndata: {events: events.csv}\n")
    (tmp_path / "locked").mkdir(mode=0o555)
    return tmp_path


def refused(done: subprocess.CompletedProcess[str], said: str) -> None:
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert said in done.stderr.replace("\n", " ")


@pytest.mark.parametrize("flow", ["nightly", "check", "replay"])
def test_a_flow_is_refused_before_prefect_starts(home: Path, flow: str) -> None:
    arguments = ("-m", f"flows.{flow}", "--config", "mine.yaml")
    locked = run(home, *arguments, limit=no_override, NIGHTLOOM_ROOT=str(home / "locked" / "mlruns"))
    refused(locked, f"{home}/locked/mlruns can not be used (Permission denied). Give this user the right")
    small = run(home, *arguments, limit=small_files(1000))
    refused(small, "a file under mlruns must not grow any more (file too large). Raise the limit (`ulimit -f`)")
    assert [path.name for path in (home / "mlruns").iterdir()] == []
    refused(
        run(home, *arguments, limit=no_override, NIGHTLOOM_ROOT=str(home / "mine.yaml" / "mlruns")), "can not be used (Not a directory)"
    )


@pytest.mark.parametrize(
    ("limit", "place", "said"),
    [
        (no_override, "locked/mine.yaml", "locked/mine.yaml can not be used (Permission denied)"),
        (no_override, "locked/new/mine.yaml", "locked/new can not be used (Permission denied)"),
        (no_override, "events.csv/mine.yaml", "events.csv can not be used (File exists)"),
        (small_files(10), "new.yaml", "a file under new.yaml must not grow any more"),
    ],
)
def test_init(home: Path, limit: Callable[[], None], place: str, said: str) -> None:
    before = sorted(home.rglob("*"))
    refused(run(home, "-m", "nightloom.cli", "init", "events.csv", "-o", place, limit=limit), said)
    assert sorted(home.rglob("*")) == before


def test_what_is_printed_to_a_full_disk(home: Path) -> None:
    done = run(home, "-m", "nightloom.cli", "init", "events.csv", "-o", "other.yaml", limit=no_override, out="/dev/full")
    refused(done, "standard output can not be written")
    assert "Exception ignored" not in done.stderr


COLLECT = """
import sys
from pathlib import Path
from nightloom.config import load_config
from nightloom.core.errors import InputError
from nightloom.data.collect import collect
try:
    config = load_config(Path("mine.yaml"))
    collect(config.name, config.data, Path("mlruns"))
except InputError as error:
    sys.exit(str(error))
"""


def test_a_snapshot_that_does_not_fit_leaves_nothing(home: Path) -> None:
    done = run(home, "-c", COLLECT, limit=small_files(1500))
    assert done.returncode == 1
    assert "must not grow any more" in done.stderr
    assert [path for path in (home / "mlruns").rglob("*") if path.is_file()] == [home / "mlruns" / ".in-use"]
    assert [path.name for path in (home / "mlruns" / "snapshots" / "mine").iterdir()] == []


STAGE = """
import sys
from pathlib import Path
import numpy as np
from nightloom.config import load_preset
from nightloom.core.errors import InputError
from nightloom.encoders.text_cache import TextCache
from nightloom.runs.stages import Night, run_stage
from nightloom.training import checkpoint
import torch
from safetensors.numpy import save_file
big = np.random.default_rng(0).normal(size=40_000).astype(np.float32)
writers = {
    "numpy": lambda folder: np.savez(folder / "a.npz", big=big),
    "array": lambda folder: np.save(folder / "a.npy", big),
    "safetensors": lambda folder: save_file({"big": big}, folder / "a.safetensors"),
    "torch": lambda folder: checkpoint.save(folder, {"big": torch.from_numpy(big)}),
    "parquet": lambda folder: __import__("pandas").DataFrame({"big": big}).to_parquet(folder / "a.parquet"),
    "cache": lambda folder: TextCache(folder.parent / "cache").vectors(["a"], lambda *_: big[None, :]),
    "text": lambda folder: (folder / "a.txt").write_text("x" * 200_000),
}
night = Night.start(load_preset("movies-small"), Path("mlruns"))
for name, write in writers.items():
    try:
        run_stage(night, name, lambda folder: {"done": write(folder)}, config={}, resumable=name == "torch")
    except InputError as error:
        print(name, error, file=sys.stderr)
"""


def test_every_library_that_writes_a_stage_is_understood(home: Path) -> None:
    done = run(home, "-c", STAGE, limit=small_files(100_000))
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["numpy", "array", "safetensors", "torch", "parquet", "cache", "text"]
    assert all("must not grow any more (file too large)" in line or "no space left" in line for line in lines)
    left = [path for path in (home / "mlruns" / "stages").rglob("*") if path.suffix != ".lock"]
    assert {path.parent.name for path in left if path.name.endswith(".partial")} == {"torch"}  # it is gone on with
    assert [path for path in left if path.is_file()] == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on the disk of"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "no space left on the disk of"),
        (OSError(errno.EROFS, "Read-only file system", "/data/x"), "/data/x can not be used (Read-only file system)"),
        (PermissionError(errno.EACCES, "Permission denied", "/data/x"), "/data/x can not be used (Permission denied)"),
        (RuntimeError("(sqlite3.OperationalError) database or disk is full"), "no space left on the disk of"),
        (TrainingError("the end of log.txt:\nOSError: [Errno 28] No space left on device"), "no space left on the disk of"),
        (ValueError("anything"), None),
        (PermissionError(errno.EPERM, "Operation not permitted"), None),
        (FileNotFoundError(errno.ENOENT, "No such file", "/data/x"), None),
    ],
)
def test_errors_that_are_the_disk_s(tmp_path: Path, error: Exception, said: str | None) -> None:
    found = trouble(error, tmp_path)
    assert (found is None) == (said is None)
    assert said is None or said in str(found)
    if said is None:
        with pytest.raises(type(error)), disk_of(tmp_path):
            raise error
    else:
        with pytest.raises(InputError, match=r"can not be used|no space left"), disk_of(tmp_path):
            raise error


def test_an_error_with_a_full_disk_behind_it(tmp_path: Path) -> None:
    """Torch says that a file is not as long as it should be, and pandas that a column is odd; only the first is about the disk."""

    def torch_fails() -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise RuntimeError("unexpected pos 64 vs 0") from error

    def pandas_fails() -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise ValueError("the table can not be written") from None

    with pytest.raises(InputError, match="no space left"), disk_of(tmp_path):
        torch_fails()
    with pytest.raises(ValueError, match="table"), disk_of(tmp_path):
        pandas_fails()


def test_a_server_that_failed_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = RuntimeError("Timed out while attempting to connect to ephemeral Prefect API server.")
    assert trouble(error, tmp_path, [tmp_path / "prefect"]) is None
    monkeypatch.setattr(disk, "LITTLE", 2**62)
    assert "MiB are free on the disk of" in str(trouble(error, tmp_path, [tmp_path / "prefect"]))
    with pytest.raises(InputError, match="MiB are free"):
        writable(tmp_path)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_text(path, "before")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "after \udc80")
    assert [one.read_text() for one in tmp_path.iterdir()] == ["before"]
