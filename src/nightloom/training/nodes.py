"""Training on several machines without an engine: a launcher on each, and one store where they meet.

The number of nodes is fixed. The launcher of node 0 keeps the store. Where a worker or a node is lost, all launchers end their
workers, wait until every node is there, and start again together from the last checkpoint. torchrun's elastic rendezvous is not used:
it ends with the node that holds its store (pytorch/pytorch#67742).
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psutil
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, start_processes

from nightloom.core.errors import InputError, TrainingError
from nightloom.training.launch import MAX_RESTARTS, environment

LOOK_SECONDS = 0.5
SILENT_SECONDS = 30.0
"""A launcher that has not been heard of for so long is lost, and its workers with it."""
GATHER_SECONDS = 1800.0
"""For so long the launchers wait for all nodes, at the start and after a loss."""
LOST = -1
"""Code of an attempt that another node's loss ended."""


@dataclass(frozen=True)
class Nodes:
    """Where the launchers of a run meet, and which of them this is.

    Attributes:
        count: number of nodes.
        rank: which this is; 0 keeps the store.
        host: address of node 0, as the others reach it.
        port: of the store.
    """

    count: int
    rank: int
    host: str
    port: int

    @classmethod
    def of(cls, count: int, rank: int, store: str | None) -> Nodes:
        """What the command line says.

        Raises:
            InputError: the store has no address, or no node has that rank.
        """
        host, _, port = (store or "").rpartition(":")
        if not host or not port.isdecimal():
            raise InputError(f"--store {store or '(not given)'}: write HOST:PORT of node 0, with a port that is free there.")
        if not 0 <= rank < count:
            raise InputError(f"--node-rank {rank}: with --nodes {count} it is 0 to {count - 1}.")
        return cls(count, rank, host.strip("[]"), int(port))


def run_nodes(config: Path, workers: int, nodes: Nodes) -> int:
    """Be the launcher of one node; returns 0, or the exit code of a worker that failed for good.

    Args:
        config: run.json; it, and what it names, are seen by all nodes under one path.
        workers: processes on each node.
        nodes: all nodes.

    Raises:
        TrainingError: the store of node 0 is not there, or the nodes did not come together in time.
    """
    try:
        meeting = Meeting(nodes)
        while True:
            attempt = meeting.gather()
            code = _attempt(config, workers, nodes, meeting, attempt)
            if code == 0:
                meeting.part(attempt)
                return 0
            if code == InputError.exit_code or attempt > MAX_RESTARTS:
                meeting.end(code)
                return code if code > 0 else TrainingError.exit_code
            if (ended := meeting.ended()) is not None:
                return ended
            meeting.call_off(attempt)
            sys.stderr.write(f"node {nodes.rank}: attempt {attempt} lost a worker or a node; all start again from the last checkpoint\n")
    except dist.DistError as error:  # the socket's and the store's errors
        raise TrainingError(
            f"node {nodes.rank}: the store of node 0 at {nodes.host}:{nodes.port} is gone or was never there. Start all nodes again: "
            "training goes on from the last checkpoint."
        ) from error


class Meeting:
    """What the launchers tell each other through the store: that they live, that they wait, that an attempt is over.

    Args:
        nodes: all nodes, and which this is.
    """

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        self.store = dist.TCPStore(  # type: ignore[attr-defined]  # not in __all__
            nodes.host,
            nodes.port,
            is_master=nodes.rank == 0,
            wait_for_workers=False,
            timeout=timedelta(seconds=GATHER_SECONDS),
        )
        self.heard = [(0, time.monotonic())] * nodes.count
        """Of each node its last beat, and when that was new here. Clocks of machines are not compared."""

    def gather(self) -> int:
        """Wait for all nodes; returns the number of the attempt that begins, from 1.

        Node 0 counts the attempts. A launcher that was started in the place of a lost one knows of none: it waits for the next.
        """
        rank, last, end = self.nodes.rank, self._count("attempt"), time.monotonic() + GATHER_SECONDS
        self.store.set(f"waiting_{rank}", "1")
        while time.monotonic() < end:
            self._beat()
            if rank == 0 and all(self._count(f"waiting_{node}") for node in range(self.nodes.count)) and not self._silent():
                for node in range(self.nodes.count):
                    self.store.set(f"waiting_{node}", "0")
                return int(self.store.add("attempt", 1))
            if rank and (now := self._count("attempt")) > last:
                return now
            time.sleep(LOOK_SECONDS)
        missing = [node for node in range(self.nodes.count) if not self._count(f"waiting_{node}")]
        raise TrainingError(f"nodes {missing} of {self.nodes.count} did not come within {GATHER_SECONDS / 60:.0f} minutes.")

    def off(self, attempt: int) -> bool:
        """Tell that this node lives; returns whether the attempt is over for all: a node said so, ended the run, is silent, or new."""
        self._beat()
        anew = any(self._count(f"waiting_{node}") for node in range(self.nodes.count))
        return anew or self.ended() is not None or bool(self._count(f"off_{attempt}")) or bool(self._silent())

    def call_off(self, attempt: int) -> None:
        """Tell all that an attempt is over."""
        self.store.set(f"off_{attempt}", "1")

    def end(self, code: int) -> None:
        """Tell all that there is no other attempt, and leave them time to hear it."""
        self.store.set("ended", str(code if code > 0 else TrainingError.exit_code))
        if self.nodes.rank == 0:
            time.sleep(4 * LOOK_SECONDS)

    def ended(self) -> int | None:
        """The code that a node has ended the run with."""
        return self._count("ended") or None

    def part(self, attempt: int) -> None:
        """Go when all are done: the workers of other nodes may still read the store of node 0."""
        self.store.add(f"done_{attempt}", 1)
        while self.nodes.rank == 0 and self._count(f"done_{attempt}") < self.nodes.count and not self._silent():
            self._beat()
            time.sleep(LOOK_SECONDS)

    def _beat(self) -> None:
        self.store.add(f"beat_{self.nodes.rank}", 1)
        for node, (last, _) in enumerate(self.heard):
            if (now := self._count(f"beat_{node}")) != last:
                self.heard[node] = (now, time.monotonic())

    def _silent(self) -> list[int]:
        """Nodes that have not been heard of for too long."""
        return [node for node, (_, when) in enumerate(self.heard) if time.monotonic() - when > SILENT_SECONDS]

    def _count(self, key: str) -> int:
        return int(self.store.add(key, 0))


def _interface(nodes: Nodes) -> str | None:
    """The network interface that leads to node 0. gloo takes the one of the machine's name, which often is the loopback."""
    kind, _, _, _, place = socket.getaddrinfo(nodes.host, nodes.port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(kind, socket.SOCK_DGRAM) as probe:
        probe.connect(place)  # sends nothing
        here = probe.getsockname()[0]
    interfaces = psutil.net_if_addrs()
    return next((name for name, addresses in interfaces.items() if any(one.address.split("%")[0] == here for one in addresses)), None)


def _attempt(config: Path, workers: int, nodes: Nodes, meeting: Meeting, attempt: int) -> int:
    """Run this node's workers once; returns 0, the exit code of the first that failed, or LOST when another node ended it."""
    shared = environment(workers) | {
        "WORLD_SIZE": str(nodes.count * workers),
        "LOCAL_WORLD_SIZE": str(workers),
        "MASTER_ADDR": nodes.host,
        "MASTER_PORT": str(nodes.port),
        "TORCHELASTIC_RESTART_COUNT": str(attempt),  # sets the keys of attempts apart, see `distributed.world`
    }
    if (name := _interface(nodes)) is not None:
        shared.setdefault("GLOO_SOCKET_IFNAME", name)
    ranks = {local: {"RANK": str(nodes.rank * workers + local), "LOCAL_RANK": str(local)} for local in range(workers)}
    command = ("-m", "nightloom.training", "--config", str(config), "--parent", str(os.getpid()))
    group = start_processes(
        "nightloom",
        sys.executable,
        dict.fromkeys(ranks, command),
        {local: shared | own for local, own in ranks.items()},
        DefaultLogsSpecs(),
    )
    try:
        while True:
            result = group.wait(timeout=LOOK_SECONDS, period=LOOK_SECONDS / 2)
            if result is not None:
                first = min(result.failures.values(), key=lambda failure: failure.timestamp, default=None)
                return 0 if first is None else first.exitcode
            if meeting.off(attempt):
                return LOST
    finally:
        group.close(signal.SIGTERM)
