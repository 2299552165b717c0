"""The history encoder of `nightloom.models.sequential` as kernels, one history at a time, with cached keys and values.

A token's inputs are fixed once the next event is known: its gap and its request time are that event's. Only the last token depends on
the time of the request. So the keys and values of all tokens but the last are kept for a stored user, and `extend` goes on from them.
A history without a cache is the same with nothing kept.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nightloom.core.sequences import Histories
from nightloom.serving.items.growing import aligned_empty
from nightloom.serving.model.int8_product import Packed
from nightloom.serving.model.jit import inlined, kernel
from nightloom.serving.model.products import factor, multiply
from nightloom.serving.model.rows import Rows, add_row

FloatArray = NDArray[np.float32]
BOS = -1
UNKNOWN = np.int64(1) << 60
"""Time of an event whose time is not known: later than any request, so that its gap is in the bucket of no time."""
EPSILON = np.float32(1e-5)
LONGEST_GAP = 2**31 - 2
"""Seconds, 68 years: what lies farther back counts as that far."""


class Network(NamedTuple):
    """The encoder's weights, float32; matrices are [in, out], or `Packed`. See `nightloom.packaging.serving_artefact.network_arrays`.

    Attributes:
        bos: [dim], what an empty history starts with.
        event_types: [event names, dim].
        gaps: [time buckets, dim]; of length 0 where the model reads no times.
        negative: [dim], added where an event was not positive; zero without a label head.
        near_bias: [blocks * heads, max_history], bias by distance in events, the farthest first.
        time_bias: [blocks * heads, time buckets].
        attention_norm: [blocks, 2, dim], weight and bias.
        kv: [blocks, dim, 2 * dim], keys and values.
        qg: [blocks, dim, 2 * dim], scaled queries and the gate.
        out: [blocks, dim, dim].
        ffn_norm: [blocks, 2, dim].
        up: [blocks, dim, 4 * dim], the gate and what is gated.
        down: [blocks, 2 * dim, dim].
        out_norm: [2, dim], divided by the temperature.
    """

    bos: FloatArray
    event_types: FloatArray
    gaps: FloatArray
    negative: FloatArray
    near_bias: FloatArray
    time_bias: FloatArray
    attention_norm: FloatArray
    kv: FloatArray | Packed
    qg: FloatArray | Packed
    out: FloatArray | Packed
    ffn_norm: FloatArray
    up: FloatArray | Packed
    down: FloatArray | Packed
    out_norm: FloatArray

    @property
    def shape(self) -> tuple[int, int]:
        """Blocks, and width of a vector."""
        return self.attention_norm.shape[0], self.attention_norm.shape[2]


class Tokens(NamedTuple):
    """The tokens of one window: BOS (unless the window starts later) and events.

    Attributes:
        items: int32 [tokens], dense items, BOS for the first.
        codes: int16 [tokens], codes of event names; 0 for BOS.
        negative: bool [tokens], whether the event was not positive.
        times: int64 [tokens], seconds, `UNKNOWN` for BOS and where times are not known.
        asked: int64 [tokens], when the next event happened, or the request for the last token.
    """

    items: NDArray[np.int32]
    codes: NDArray[np.int16]
    negative: NDArray[np.bool_]
    times: NDArray[np.int64]
    asked: NDArray[np.int64]


@inlined
def exponential(x: Any) -> Any:
    """exp(x) in float32 to 2e-7, in a form that the compiler turns into vector instructions."""
    scaled = min(max(x * np.float32(1.4426950408889634), np.float32(-126)), np.float32(126))
    whole = np.floor(scaled + np.float32(0.5))
    rest = scaled - whole
    power = np.float32(1.5403530e-4)
    power = power * rest + np.float32(1.3333558e-3)
    power = power * rest + np.float32(9.6181291e-3)
    power = power * rest + np.float32(5.5504109e-2)
    power = power * rest + np.float32(2.4022651e-1)
    power = power * rest + np.float32(6.9314718e-1)
    power = power * rest + np.float32(1)
    return power * np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)


@inlined
def time_bucket(asked: Any, time: Any) -> Any:
    """As `nightloom.models.sequential.attention.time_bucket`: 0 for no time, else floor(log2(seconds + 1)) + 1."""
    seconds = min(asked - time, LONGEST_GAP)
    if seconds < 0:
        return 0
    return (np.float32(np.float32(seconds) + np.float32(1)).view(np.int32) >> 23) - 126


@inlined
def scratch(n: Any, m: Any) -> Any:
    """As `nightloom.serving.items.growing.aligned_empty`, float32 [n, m]."""
    flat = np.empty(n * m + 16, np.float32)
    first = (64 - flat.ctypes.data % 64) % 64 // 4
    return flat[first : first + n * m].reshape(n, m)


@kernel
def norm(x: Any, affine: Any, out: Any) -> None:
    """Layer norm of each row; affine: weight and bias, float32 [2, dim]."""
    n, dim = x.shape
    for t in range(n):
        row = x[t]
        mean = np.float32(0)
        for j in range(dim):
            mean += row[j]
        mean /= np.float32(dim)
        variance = np.float32(0)
        for j in range(dim):
            variance += (row[j] - mean) * (row[j] - mean)
        scale = np.float32(1) / np.sqrt(variance / np.float32(dim) + EPSILON)
        for j in range(dim):
            out[t, j] = (row[j] - mean) * scale * affine[0, j] + affine[1, j]


@kernel
def inputs(net: Any, vectors: Any, tokens: Any, first: Any) -> Any:
    """What the tokens from `first` on are read as, float32 [tokens - first, dim]."""
    stop, dim = len(tokens.items), len(net.bos)
    x = scratch(stop - first, dim)
    for t in range(first, stop):
        row, item = x[t - first], tokens.items[t]
        kind = net.event_types[tokens.codes[t]]
        row[:] = kind
        if item == BOS:
            row += net.bos
        else:
            add_row(vectors, item, row)
        if tokens.negative[t]:
            row += net.negative
        if len(net.gaps):
            asked = tokens.asked[t] if tokens.times[t] == UNKNOWN else max(tokens.asked[t], tokens.times[t])
            row += net.gaps[time_bucket(asked, tokens.times[t])]
    return x


@kernel
def buckets(tokens: Any, first: Any) -> Any:
    """Time bucket of each token from `first` on and each key up to it, uint8 [tokens - first, tokens]."""
    stop = len(tokens.items)
    found = np.zeros((stop - first, stop), np.uint8)
    for t in range(first, stop):
        asked = tokens.asked[t] if tokens.times[t] == UNKNOWN else max(tokens.asked[t], tokens.times[t])
        for key in range(t + 1):
            found[t - first, key] = time_bucket(asked, tokens.times[key])
    return found


@kernel
def gated(gate: Any, x: Any, silu: Any, out: Any) -> None:
    """out = sigmoid(gate) x, or silu(gate) x; float32 [n]. Rows of their own, since the compiler vectorises these alone."""
    for j in range(len(out)):
        out[j] = (gate[j] if silu else np.float32(1)) / (np.float32(1) + exponential(-gate[j])) * x[j]


@kernel
def attend(query: Any, keys: Any, values: Any, near: Any, later: Any, cells: Any, place: Any, out: Any) -> None:
    """One token's attention over all tokens up to it, head by head.

    Args:
        query: float32 [dim], scaled.
        keys: float32 [dim, capacity], one token a column.
        values: float32 [capacity, dim].
        near: float32 [heads, distances], the farthest first.
        later: float32 [heads, time buckets].
        cells: uint8 [place + 1], time bucket of each key.
        place: of the token.
        out: float32 [dim], written.
    """
    heads, dim, many = len(near), len(query), place + 1
    width = dim // heads
    scores = np.empty(many, np.float32)
    for head in range(heads):
        at = head * width
        highest = np.float32(-np.inf)
        nearness, lateness = near[head, len(near[head]) - many :], later[head]
        for key in range(many):
            scores[key] = nearness[key] + lateness[cells[key]]
        for i in range(at, at + width - width % 4, 4):
            a, b, c, d = query[i], query[i + 1], query[i + 2], query[i + 3]
            row0, row1, row2, row3 = keys[i], keys[i + 1], keys[i + 2], keys[i + 3]
            for key in range(many):
                scores[key] += a * row0[key] + b * row1[key] + c * row2[key] + d * row3[key]
        for i in range(at + width - width % 4, at + width):
            a, row0 = query[i], keys[i]
            for key in range(many):
                scores[key] += a * row0[key]
        for key in range(many):
            highest = max(highest, scores[key])
        total = np.float32(0)
        for key in range(many):
            scores[key] = exponential(scores[key] - highest)
            total += scores[key]
        mine = out[at : at + width]
        mine[:] = 0
        for key in range(0, many - many % 4, 4):
            a, b, c, d = scores[key], scores[key + 1], scores[key + 2], scores[key + 3]
            row0, row1 = values[key, at : at + width], values[key + 1, at : at + width]
            row2, row3 = values[key + 2, at : at + width], values[key + 3, at : at + width]
            for j in range(width):
                mine[j] += a * row0[j] + b * row1[j] + c * row2[j] + d * row3[j]
        for key in range(many - many % 4, many):
            a, row0 = scores[key], values[key, at : at + width]
            for j in range(width):
                mine[j] += a * row0[j]
        for j in range(width):
            mine[j] /= total


@kernel
def extend(net: Any, vectors: Any, tokens: Any, first: Any, keys: Any, values: Any, answer: Any) -> Any:
    """Read tokens after those whose keys and values are kept, and keep theirs.

    Args:
        net: `Network`.
        vectors: `Rows` of the items.
        tokens: `Tokens` of the whole window, the kept ones included.
        first: tokens that are kept already.
        keys: float32 [blocks, dim, capacity], written from `first` on.
        values: float32 [blocks, capacity, dim], written from `first` on.
        answer: whether a user vector is wanted; else the last block stops at keys and values.

    Returns:
        The user vector at the last token, float32 [dim], divided by the temperature; without meaning unless `answer`.
    """
    stop, dim = len(tokens.items), len(net.bos)
    n, blocks = stop - first, len(net.attention_norm)
    heads = len(net.near_bias) // blocks
    x, cells = inputs(net, vectors, tokens, first), buckets(tokens, first)
    normed, attended, pair, wide = scratch(n, dim), scratch(n, dim), scratch(n, 2 * dim), scratch(n, 4 * dim)
    user = np.empty((1, dim), np.float32)
    for block in range(blocks):
        norm(x, net.attention_norm[block], normed)
        rows = factor(normed, net.kv)
        multiply(rows, net.kv, block, pair)
        for t in range(n):
            for j in range(dim):
                keys[block, j, first + t] = pair[t, j]
                values[block, first + t, j] = pair[t, dim + j]
        since = 0  # the first token whose output is wanted: after the last block that of the last token alone
        if block == blocks - 1:
            if not answer:
                return user[0]
            since = n - 1
            rows = factor(normed[since:], net.qg)
        many = n - since
        multiply(rows, net.qg, block, pair[:many])
        own = slice(block * heads, (block + 1) * heads)
        near, later = net.near_bias[own], net.time_bias[own]
        for t in range(many):
            place = first + since + t
            attend(pair[t, :dim], keys[block], values[block], near, later, cells[since + t], place, attended[t])
            gated(pair[t, dim:], attended[t], False, normed[t])
        multiply(factor(normed[:many], net.out), net.out, block, attended[:many])
        for t in range(many):
            x[since + t] += attended[t]
        norm(x[since:], net.ffn_norm[block], normed[:many])
        multiply(factor(normed[:many], net.up), net.up, block, wide[:many])
        for t in range(many):
            gated(wide[t, : 2 * dim], wide[t, 2 * dim :], True, pair[t])
        multiply(factor(pair[:many], net.down), net.down, block, normed[:many])
        for t in range(many):
            x[since + t] += normed[t]
    norm(x[n - 1 :], net.out_norm, user)
    return user[0]


def tokens_of(histories: Histories, max_history: int, *, timed: bool) -> Tokens:
    """The window of one history that is read: its latest `max_history` tokens.

    Args:
        histories: one history.
        max_history: most tokens.
        timed: whether the model reads times.
    """
    n = len(histories.items)
    items, codes, negative = np.empty(n + 1, np.int32), np.zeros(n + 1, np.int16), np.zeros(n + 1, np.bool_)
    items[0], items[1:] = BOS, histories.items
    codes[1:] = histories.event_types
    np.logical_not(histories.positive, out=negative[1:])
    times, asked = np.full(n + 1, UNKNOWN), np.zeros(n + 1, np.int64)
    now = histories.request_time[0]
    if timed and now > 0:
        times[1:] = asked[:-1] = histories.times
        asked[-1] = now
    first = max(n + 1 - max_history, 0)
    return Tokens(items[first:], codes[first:], negative[first:], times[first:], asked[first:])


def rounded(tokens: int) -> int:
    """Room for the keys of so many tokens: a multiple of 16, so that each row of them begins at a multiple of 64 bytes."""
    return -(-tokens // 16) * 16


def user_vector(net: Network, vectors: Rows, tokens: Tokens) -> FloatArray:
    """User vector of a window of which nothing is kept, float32 [dim]."""
    n, (blocks, dim) = len(tokens.items), net.shape
    room = rounded(n)
    found: FloatArray = extend(net, vectors, tokens, 0, aligned_empty((blocks, dim, room)), aligned_empty((blocks, room, dim)), True)
    return found
