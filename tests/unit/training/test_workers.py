"""The group of workers: its port can not be lost to another program, and who waits for rank 0 waits as long as that lives."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist
import torch.distributed.run

from nightloom.training.launch import run_workers

PATIENCE = """
import datetime, os, sys, time
from torch.distributed import distributed_c10d
from nightloom.training.distributed import world
with world() as here:
    here.wait()
    distributed_c10d._set_pg_timeout(datetime.timedelta(seconds=5), distributed_c10d.GroupMember.WORLD)  # in place of 30 minutes
    if here.rank == 0:
        if "die" in sys.argv:
            time.sleep(1)
            os._exit(3)
        time.sleep(8)
    print(here.rank, here.agree("chosen" if here.rank == 0 else None), flush=True)
    here.wait()
"""


def test_no_other_program_can_take_the_port_before_the_workers_use_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    taken = []

    def just_before(arguments: list[str]) -> None:
        port = next(int(one.partition("=")[2]) for one in arguments if one.startswith("--master-port="))
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as a server that starts again does
            try:
                other.bind(("127.0.0.1", port))
                other.listen()
            except OSError:
                taken.append(False)
            else:
                taken.append(True)

    monkeypatch.setattr(torch.distributed.run, "main", just_before)
    assert run_workers(tmp_path / "run.json", 2) == 0
    assert taken == [False]


def test_workers_wait_for_rank_0_longer_than_a_collective_would() -> None:
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]  # not in __all__
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "WORLD_SIZE": "2", "PYTHONPATH": "src"}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", PATIENCE],
            env=os.environ | place | {"RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    try:
        said = [worker.communicate(timeout=300) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], said
    assert [out.strip() for out, _ in said] == ["0 chosen", "1 chosen"]


def test_workers_do_not_wait_for_a_rank_0_that_died(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(PATIENCE, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=0", str(script), "die"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": "src"}, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode != 0
    assert "exitcode  : 3" in done.stderr
    assert "chosen" not in done.stdout
