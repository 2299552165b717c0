"""A disk that turns read-only in the middle of a night: exit code 2 and one sentence, and after its repair the night ends as another.

The disk is a file with ext4 on it, which the kernel aborts as it does after an error. Files that are open may be written no more either.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from nightloom.core.disk import writable
from nightloom.core.errors import InputError
from tests.tiny_models import tiny_bert

REPOSITORY = Path(__file__).parents[2]
CONFIG = """
name: mine
data: {{events: events.csv, items: items.csv}}
pretrained: {{model: {model}}}
model: {{dim: 16, blocks: 1, heads: 2}}
training: {{epochs: 2, workers: 1, precision: fp32}}
evaluation: {{protocols: [temporal], baselines: [popularity]}}
explain: {{users: 1, max_events: 3, samples: 16}}
promotion: {{must_beat_baselines: false, resamples: 100}}
"""
NEEDS_ROOT = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a small disk needs root")


class Disk:
    """An ext4 file system in a file, mounted."""

    def __init__(self, folder: Path) -> None:
        self.image, self.at = folder / "disk.ext4", folder / "disk"
        with self.image.open("wb") as file:
            file.truncate(300 * 2**20)
        self.at.mkdir()
        subprocess.run(["mkfs.ext4", "-q", "-F", str(self.image)], check=True)
        self.mount()

    def mount(self) -> None:
        done = subprocess.run(["mount", "-o", "loop,errors=remount-ro", str(self.image), str(self.at)], capture_output=True, check=False)
        if done.returncode:
            pytest.skip("mounting a small disk is not allowed here")

    def abort(self) -> None:
        """What ext4 does to itself after an error of the disk; what was not on it yet would be lost, and made again."""
        subprocess.run(["sync", "-f", str(self.at)], check=True)
        subprocess.run(["mount", "-o", "remount,abort", str(self.at)], check=True, capture_output=True)

    def unmount(self) -> None:
        for _ in range(40):
            if subprocess.run(["umount", str(self.at)], capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.25)
        raise AssertionError("something still uses the disk")

    def repair(self) -> None:
        self.unmount()
        assert subprocess.run(["e2fsck", "-fy", str(self.image)], capture_output=True, check=False).returncode in (0, 1)
        self.mount()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path)
    try:
        yield made
    finally:
        subprocess.run(["umount", "-l", str(made.at)], capture_output=True, check=False)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    rows = [
        f"u{user},i{(user + step) % 20:02d},{1_600_000_000 + 50_000 * user + 100_000 * step}" for user in range(40) for step in range(9)
    ]
    (tmp_path / "events.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]) + "\n")
    (tmp_path / "items.csv").write_text("\n".join(["item_id,title", *(f"i{item:02d},red dog {item}" for item in range(20))]) + "\n")
    (tmp_path / "mine.yaml").write_text(CONFIG.format(model=tiny_bert(tmp_path / "bert")))
    return tmp_path


def start(home: Path, root: Path) -> subprocess.Popen[str]:
    env = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"} | {
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "src")]),
        "NIGHTLOOM_ROOT": str(root),
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-m", "flows.nightly", "--config", "mine.yaml"]
    with (home / "said.txt").open("w") as said, (home / "errors.txt").open("w") as errors:
        return subprocess.Popen(command, cwd=home, env=env, stdout=said, stderr=errors, text=True)


@NEEDS_ROOT
def test_a_disk_that_turns_read_only_mid_night(home: Path, disk: Disk) -> None:
    root = disk.at / "mlruns"
    process = start(home, root)
    while not any((root / "stages" / "mine" / "promote").glob("*.partial")):
        assert process.poll() is None, (home / "errors.txt").read_text()
        time.sleep(0.02)
    disk.abort()
    process.wait(timeout=60)
    said = (home / "errors.txt").read_text()
    assert (process.returncode, "Traceback" in said) == (2, False), said
    assert said.startswith(f"InputError: {root}"), said
    assert "can not be used (Read-only file system). Mount its disk for writing again" in said
    assert said.count("\n") == 1, said
    left = [one.cmdline() for one in psutil.process_iter() if _reads(one, root)]
    assert left == []
    disk.repair()
    again = start(home, root)
    assert again.wait(timeout=300) == 0, (home / "errors.txt").read_text()
    report = json.loads((root / "nights" / "mine" / "latest" / "report.json").read_text())
    statuses = {name: one["status"] for name, one in report["stages"].items() if name not in ("collect", "promote")}
    assert statuses == dict.fromkeys(statuses, "reused")
    assert report["versions"] == {"champion": "1", "challenger": "1", "previous": None, "anchor": "1"}


@NEEDS_ROOT
def test_a_disk_that_says_it_can_be_written_is_tried(disk: Disk) -> None:
    disk.abort()
    with pytest.raises(InputError, match=r"can not be used \(Read-only file system\)\. Mount its disk for writing again"):
        writable(disk.at / "mlruns")


def _reads(process: psutil.Process, root: Path) -> bool:
    try:
        return process.environ().get("NIGHTLOOM_ROOT") == str(root) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
