"""Training on two machines without an engine. Each is a network namespace, so they meet through a network and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from nightloom.core.errors import InputError
from nightloom.training.distributed import World
from nightloom.training.nodes import Meeting, Nodes
from nightloom.training.run import Training
from nightloom.training.run_json import Run
from tests.servers import free_port
from tests.unit.training.test_training_run import losses, waited


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def machines() -> Iterator[list[str]]:
    """Two namespaces that a cable joins: 10.77.0.1 and 10.77.0.2."""
    names = [f"nightloom-{uuid.uuid4().hex[:6]}-{node}" for node in (0, 1)]
    ends = [f"nl{name[10:16]}{node}" for node, name in enumerate(names)]
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", ends[0], "netns", names[0], "type", "veth", "peer", "name", ends[1], "netns", names[1])
        for node, (name, end) in enumerate(zip(names, ends, strict=True), 1):
            ip("-n", name, "addr", "add", f"10.77.0.{node}/24", "dev", end)
            ip("-n", name, "link", "set", end, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def launcher(machine: str, node: int, path: Path, nodes: int = 2) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "nightloom.training", "--config", str(path), "--nodes", str(nodes), "--node-rank", str(node)]
    return subprocess.Popen(
        ["ip", "netns", "exec", machine, *command, "--store", "10.77.0.1:29511"],
        env=os.environ | {"PYTHONPATH": "src"},
        stderr=(path.parent / f"node-{node}.txt").open("ab"),
    )


def workers(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children()


def epochs(out: Path) -> list[int]:
    path = out / "curves.jsonl"
    return [json.loads(line)["epoch"] for line in path.read_text().splitlines() if line.endswith("}")] if path.exists() else []


@pytest.mark.cluster
@pytest.mark.parametrize("lost", ["worker", "node"])
def test_two_machines_give_the_curve_of_one_whatever_is_lost(lost: str, machines: list[str], tmp_path: Path, settings, write_run) -> None:
    config = settings(epochs=40, patience=40, workers=2)
    path = write_run(config, tmp_path / "two")
    running = [launcher(machine, node, path) for node, machine in enumerate(machines)]
    try:
        assert waited(lambda: len(epochs(tmp_path / "two")) >= 3)
        if lost == "worker":
            workers(running[1])[0].send_signal(signal.SIGKILL)
        else:
            before = workers(running[1])
            running[1].kill()  # its workers end with it
            running[1].wait()
            psutil.wait_procs(before, timeout=10)
            running[1] = launcher(machines[1], 1, path)
        assert [process.wait(400) for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert "all start again from the last checkpoint" in (tmp_path / "two" / "node-0.txt").read_text()
    alone = write_run(config, tmp_path / "one")
    Training(Run.load(alone), World())()
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)


def test_an_address_or_rank_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match=r"--store 10\.0\.0\.1: write HOST:PORT of node 0"):
        Nodes.of(2, 0, "10.0.0.1")
    with pytest.raises(InputError, match="--node-rank 2: with --nodes 2 it is 0 to 1"):
        Nodes.of(2, 2, "10.0.0.1:29500")
    assert Nodes.of(2, 1, "[fd00::1]:29500") == Nodes(2, 1, "fd00::1", 29500)


def test_a_node_that_ends_the_run_is_heard_by_the_others() -> None:
    """Node 0 takes the store with it, so they hear it before."""
    port = free_port()
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(Meeting, (Nodes(2, rank, "127.0.0.1", port) for rank in (0, 1)))
        assert not second.off(1)
        ends = pool.submit(first.end, InputError.exit_code)
        assert waited(lambda: second.off(1))
        assert second.ended() == InputError.exit_code
        ends.result()
