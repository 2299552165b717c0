"""Several processes on one file: reads of one's own writes, kills, a full disk. By hand: 10,000 pairs and 50 kills (see the commands)."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nightloom.serving.store import Event, Store, StoreFull

PAIRS = int(os.environ.get("PAIRS", "300"))
KILLS = int(os.environ.get("KILLS", "5"))
PROCESS = Path(__file__).with_name("store_process.py")


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, str(PROCESS), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def say(process: subprocess.Popen[str], *command: Any) -> list[int]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(command) + "\n")
    process.stdin.flush()
    answer: list[int] = json.loads(process.stdout.readline())
    return answer


def test_what_one_process_acknowledged_the_next_request_of_any_sees(tmp_path: Path) -> None:
    workers = [start("talk", str(tmp_path / "shop.db")) for _ in range(2)]
    stale = 0
    for pair in range(PAIRS):
        user, writer = f"u{pair % 50}", workers[pair % 2]
        say(writer, "add", f"e{pair}", user)
        for reader in workers:
            stale += say(reader, "ask", user) != [pair // 50 + 1] * 2
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.close()
        assert worker.wait(10) == 0
    assert stale == 0


def test_a_killed_process_loses_nothing_that_was_acknowledged_and_doubles_nothing(tmp_path: Path) -> None:
    path, acknowledged = tmp_path / "shop.db", set[str]()
    for kill in range(KILLS):
        process = start("flood", str(path), str(kill))
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(0.05 + 0.07 * (kill % 5))
        process.kill()
        said = first + process.stdout.read()
        process.wait()
        acknowledged |= {line for line in said.splitlines(keepends=True) if line.endswith("\n")}
    wanted = {line.strip() for line in acknowledged}
    assert len(wanted) > 20 * KILLS
    store = Store.open(path)
    told = [change.event_id for change in store.view().changes() if isinstance(change, Event)]
    assert not wanted - set(told)
    assert len(told) == len(set(told))
    assert store.add_events([Event(one, "u", "i", "click", 1) for one in sorted(wanted)]).new == 0
    store.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_full_disk_is_told_loses_nothing_and_is_over_when_there_is_space(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    done = subprocess.run([sys.executable, str(PROCESS), "fill", str(path), str(3 << 20)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["refused"] == 5
    assert "Make space" in said["said"]
    assert said["waiting"] == ["StoreFull"] * 5
    assert said["read"] == len(said["acknowledged"]) - 1, "reads go on"
    store = Store.open(path)
    found = {change.event_id for change in store.view().changes() if isinstance(change, Event)}
    store.close()
    assert found == set(said["acknowledged"])
    assert len(found) > 100


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_small_disk_that_is_full_of_something_else(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        store = Store.open(disk / "shop.db")
        store.add_events([Event("e1", "u", "i", "click", 1)])
        subprocess.run(["dd", "if=/dev/zero", f"of={disk / 'filler'}", "bs=4k"], capture_output=True, check=False)  # until it is full
        pad = {"pad": "x" * (1 << 20)}
        with pytest.raises(StoreFull, match="full"):
            store.add_events([Event("large", "u", "i", "click", 1, context=pad)])
        (disk / "filler").unlink()
        assert store.add_events([Event("e2", "u", "i", "click", 1)]).new == 1
        ids = [event.event_id for event in store.view().history("u", 10_000)]
        assert ids[0] == "e1"
        assert ids[-1] == "e2"
        store.close()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
