"""What the sequence model and a scan of item vectors cost in float32 and in int8, by shape; part of `benchmarks.compression`.

Weights are made up, since their values do not matter to the time. CPU milliseconds of one thread, a median over calls in turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nightloom.packaging.serving_precision import SINGLE, Precisions, stored
from nightloom.serving.model.scoring import fuse
from nightloom.serving.model.transformer import BOS, UNKNOWN, Tokens, user_vector
from nightloom.serving.model.weights import network_of, rows_of

HEAD = ("width x blocks", "items", "events", "sequence model, ms", "int8", "scan, ms", "int8", "both, times as fast")
SHAPES, ITEMS, EVENTS = ((64, 2, 2), (128, 3, 4)), (1_682, 3_700, 100_000), (50, 166)
CALLS, BUCKETS, WINDOW, MONTHS = 60, 34, 200, 10**7
INT8 = Precisions("int8", "int8")
Call = Callable[[], object]


def rows() -> list[tuple[str, ...]]:
    """Rows of the table."""
    found = []
    for dim, blocks, heads in SHAPES:
        for items in ITEMS:
            arrays = weights(dim, blocks, heads, items)
            for events in EVENTS:
                read, scanned = zip(
                    *(calls(arrays, precisions, events) for precisions in (SINGLE, Precisions("int8", "int8"))), strict=True
                )
                before, after = in_turn(read)
                whole, small = in_turn(scanned)
                times = [f"{1e3 * one:.3f}" for one in (before, after, whole, small)]
                found.append((f"{dim} x {blocks}", f"{items:,}", str(events), *times, f"{(before + whole) / (after + small):.2f}"))
    return found


def weights(dim: int, blocks: int, heads: int, items: int) -> dict[str, NDArray[np.float32]]:
    """Arrays of a network, as `nightloom.packaging.serving_artefact.network_arrays` gives them."""
    random = np.random.default_rng(0)

    def drawn(*shape: int) -> NDArray[np.float32]:
        return (0.1 * random.standard_normal(shape)).astype(np.float32)

    norm = np.stack([np.ones(dim), np.zeros(dim)]).astype(np.float32)
    matrices = {"kv": (dim, 2 * dim), "qg": (dim, 2 * dim), "out": (dim, dim), "up": (dim, 4 * dim), "down": (2 * dim, dim)}
    return {
        "vectors": 10 * drawn(items, dim),
        "bos": drawn(dim),
        "event_types": drawn(2, dim),
        "gaps": drawn(BUCKETS, dim),
        "negative": drawn(dim),
        "near_bias": drawn(blocks * heads, WINDOW),
        "time_bias": drawn(blocks * heads, BUCKETS),
        "attention_norm": np.stack([norm] * blocks),
        "ffn_norm": np.stack([norm] * blocks),
        "out_norm": norm,
        **{name: drawn(blocks, *shape) for name, shape in matrices.items()},
    }


def calls(arrays: dict[str, NDArray[np.float32]], precisions: Precisions, events: int) -> tuple[Call, Call]:
    """To read a history, and to score the catalogue for it."""
    kept = stored(arrays, precisions)
    net, vectors = network_of(kept, int8=True), rows_of(kept)
    random, n = np.random.default_rng(1), len(arrays["vectors"])
    times = np.sort(random.integers(0, MONTHS, events))
    tokens = Tokens(
        np.concatenate([[BOS], random.integers(0, n, events)]).astype(np.int32),
        np.zeros(events + 1, np.int16),
        np.zeros(events + 1, np.bool_),
        np.concatenate([[UNKNOWN], times]),
        np.concatenate([times, [MONTHS]]),
    )
    user, pool, out = user_vector(net, vectors, tokens), np.arange(n), np.empty(n, np.float32)
    nobody, lines, own = np.empty((0, n), np.float32), np.array([[0.0, 1.0, 0.0]]), np.ones(1, np.float32)
    return lambda: user_vector(net, vectors, tokens), lambda: fuse(vectors, user, nobody, lines, own, pool, out)


def in_turn(subjects: tuple[Call, ...]) -> list[float]:
    """CPU seconds of a call of each, a median; they take turns."""
    times: list[list[float]] = [[] for _ in subjects]
    for one in subjects:
        one()
    for _ in range(CALLS):
        for one, spent in zip(subjects, times, strict=True):
            began = time.thread_time()
            one()
            spent.append(time.thread_time() - began)
    return [float(np.median(spent)) for spent in times]
