"""CPU seconds and resident memory of a process and all its children, sampled while it runs."""

from __future__ import annotations

import bisect
import threading
import time

import psutil

SAMPLE_SECONDS = 0.05
CHILDREN_EVERY = 20
"""Samples between two looks for new children: that look reads all of /proc."""


class Watch:
    """Samples a process tree in a thread until it ends or the block is left.

    Args:
        pid: the root of the tree.

    Attributes:
        peak_mb: largest sum of resident memory so far, MiB (pages that processes share count in each).
    """

    def __init__(self, pid: int) -> None:
        self.peak_mb = 0.0
        self._pid, self._times, self._cpu, self._ended = pid, [], [], 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def cpu_at(self, moment: float) -> float:
        """CPU seconds that the tree had used at a moment of `time.time()`, between samples by interpolation."""
        times, cpu = list(self._times), list(self._cpu)
        at = bisect.bisect_left(times, moment)
        if at == 0 or at == len(times):
            return cpu[min(at, len(cpu) - 1)] if cpu else 0.0
        share = (moment - times[at - 1]) / max(times[at] - times[at - 1], 1e-9)
        return cpu[at - 1] + share * (cpu[at] - cpu[at - 1])

    def _run(self) -> None:
        try:
            tree = [psutil.Process(self._pid)]
        except psutil.Error:
            return
        last: dict[int, float] = {}
        count = 0
        while not self._stop.wait(SAMPLE_SECONDS):
            count += 1
            if count % CHILDREN_EVERY == 1:
                try:
                    tree = [tree[0], *tree[0].children(recursive=True)]
                except psutil.Error:
                    return
            memory = 0
            for process in tree:
                try:
                    with process.oneshot():
                        used = process.cpu_times()
                        last[process.pid] = used.user + used.system
                        memory += process.memory_info().rss
                except psutil.Error:
                    continue
            self._times.append(time.time())
            self._cpu.append(sum(last.values()))
            self.peak_mb = max(self.peak_mb, memory / 2**20)
