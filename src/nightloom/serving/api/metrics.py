"""Counters in Prometheus's text format, summed over the workers of a machine: each leaves its own in a file beside the store."""

from __future__ import annotations

import contextlib
import json
import os
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nightloom.core.files import write_json

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Seconds, of the histogram of how long requests take."""
FRESH_SECONDS = 10
"""Gauges of a worker that has said nothing for so long do not count; its counters do."""


class Metrics:
    """One worker's counters."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.buckets: Counter[str] = Counter()
        self.seconds: dict[str, float] = defaultdict(float)
        self.counts: Counter[str] = Counter()
        self.rejected = 0

    def count(self, method: str, path: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self.requests[f'method="{method}",path="{path}",status="{status}"'] += 1
        place = bisect_left(BOUNDS, seconds)
        self.buckets[f"{path} {place}"] += 1
        self.seconds[path] += seconds

    def state(self, gauges: Mapping[str, float]) -> dict[str, Any]:
        """What a worker leaves for the others."""
        said = {name: dict(getattr(self, name)) for name in ("requests", "buckets", "seconds", "counts")}
        return said | {"rejected": self.rejected, "gauges": dict(gauges), "time": time.time()}

    @staticmethod
    def leave(folder: Path, state: Mapping[str, Any]) -> None:
        """Write a state beside those of the others; the disk may take its time."""
        with contextlib.suppress(OSError):  # a full disk must not end a worker
            write_json(folder / f"metrics-{os.getpid()}.json", state)


def render(folder: Path, own: Mapping[str, Any]) -> str:
    """All workers' counters as text.

    Args:
        folder: where they leave their states.
        own: this worker's state as it is now.
    """
    states = [own, *_others(folder)]
    return "\n".join(_lines(states)) + "\n"


def _others(folder: Path) -> Iterator[Mapping[str, Any]]:
    for path in sorted(folder.glob("metrics-*.json")):
        if path.name != f"metrics-{os.getpid()}.json":
            with contextlib.suppress(OSError, ValueError):
                yield json.loads(path.read_text(encoding="utf-8"))


def _sum(states: list[Mapping[str, Any]], name: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for state in states:
        total.update(state[name])
    return total


def _lines(states: list[Mapping[str, Any]]) -> Iterator[str]:
    yield "# HELP nightloom_requests_total Requests answered."
    yield "# TYPE nightloom_requests_total counter"
    for labels, many in sorted(_sum(states, "requests").items()):
        yield f"nightloom_requests_total{{{labels}}} {many}"
    buckets, seconds = _sum(states, "buckets"), _sum(states, "seconds")
    yield "# HELP nightloom_request_seconds How long requests took."
    yield "# TYPE nightloom_request_seconds histogram"
    for path in sorted(seconds):
        total = 0
        for place, bound in enumerate((*map(str, BOUNDS), "+Inf")):
            total += buckets[f"{path} {place}"]
            yield f'nightloom_request_seconds_bucket{{path="{path}",le="{bound}"}} {total}'
        yield f'nightloom_request_seconds_sum{{path="{path}"}} {seconds[path]:.6f}'
        yield f'nightloom_request_seconds_count{{path="{path}"}} {total}'
    yield "# HELP nightloom_rejected_total Requests told to come back, since there were too many."
    yield "# TYPE nightloom_rejected_total counter"
    yield f"nightloom_rejected_total {sum(state['rejected'] for state in states)}"
    for name, many in sorted(_sum(states, "counts").items()):
        yield f"# TYPE nightloom_{name} counter"
        yield f"nightloom_{name} {many}"
    alive = [state for state in states if time.time() - state["time"] < FRESH_SECONDS]
    yield "# TYPE nightloom_workers gauge"
    yield f"nightloom_workers {len(alive)}"
    for name in sorted({name for state in alive for name in state["gauges"]}):
        yield f"# TYPE nightloom_{name} gauge"
        yield f"nightloom_{name} {max(state['gauges'].get(name, 0) for state in alive)}"
