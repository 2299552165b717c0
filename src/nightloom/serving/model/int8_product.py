"""Matrix products of int8 weights by int8 activations: one instruction (VNNI) multiplies and adds 64 pairs.

Weights have a scale for each column, activations one for each row, found when they are known. Sums are whole numbers of 32 bits, exact.
A processor without the instruction multiplies by the same weights in float32 (`nightloom.serving.model.weights`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from nightloom.serving.items.growing import aligned_bytes
from nightloom.serving.model.jit import kernel

TOGETHER = 8
"""Rows that are multiplied together: each keeps its sums in a register."""
COLUMNS, DEPTH = 16, 4
"""Columns of a tile, and rows of one, that an instruction takes."""
OFFSET = 128
"""The instruction takes one factor without sign: activations have this added, and the sums have it taken away."""


class Packed(NamedTuple):
    """Int8 matrices, one for each block, as `multiply_int8` reads them.

    Attributes:
        tiles: int8 [blocks, columns / 16, rows / 4, 16 * 4], zeros beyond the matrix.
        scales: float32 [blocks, columns], likewise.
        sums: int32 [blocks, columns], of each column, times `OFFSET`; likewise.
    """

    tiles: NDArray[np.int8]
    scales: NDArray[np.float32]
    sums: NDArray[np.int32]


def has_vnni() -> bool:
    """Whether the processor has the instruction."""
    features = llvm.get_host_cpu_features()
    return bool(features.get("avx512vnni") and features.get("avx512f"))


def packed(weights: NDArray[np.int8], scales: NDArray[np.float32]) -> Packed:
    """Matrices laid out for `multiply_int8`.

    Args:
        weights: int8 [blocks, rows, columns].
        scales: float32 [blocks, columns].
    """
    blocks, rows, columns = weights.shape
    deep, wide = -(-rows // DEPTH), -(-columns // COLUMNS)
    padded = np.zeros((blocks, deep * DEPTH, wide * COLUMNS), np.int8)
    padded[:, :rows, :columns] = weights
    tiles = padded.reshape(blocks, deep, DEPTH, wide, COLUMNS).transpose(0, 3, 1, 4, 2).reshape(blocks, wide, deep, COLUMNS * DEPTH)
    room = aligned_bytes(tiles.shape)
    room[...] = tiles
    beyond = ((0, 0), (0, wide * COLUMNS - columns))
    sums = (weights.astype(np.int32).sum(1) * OFFSET).astype(np.int32)
    return Packed(room, np.pad(scales, beyond), np.pad(sums, beyond))


def _tile(rows: int) -> Any:
    """An intrinsic that multiplies so many rows of activations by one column of tiles, and writes the products as float32."""

    @intrinsic
    def multiplied(_: Any, x: Any, step: Any, tiles: Any, deep: Any, steps: Any, scales: Any, offsets: Any, out: Any, wide: Any) -> Any:  # noqa: ARG001  # their types
        whole = types.intp

        def emit(context: Any, builder: ir.IRBuilder, _: Any, arguments: Any) -> Any:
            x, step, tiles, deep, steps, scales, offsets, out, wide = arguments
            lanes, word = ir.VectorType(ir.IntType(32), COLUMNS), ir.IntType(32)
            floats = ir.VectorType(ir.FloatType(), COLUMNS)

            def spread(kind: Any, place: Any) -> Any:
                """One value in all lanes."""
                one = builder.load(builder.inttoptr(place, kind.element.as_pointer()), align=1)
                first = builder.insert_element(ir.Constant(kind, ir.Undefined), one, word(0))
                return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), ir.Constant(lanes, [0] * COLUMNS))

            long = step.type
            before = builder.block
            loop, done = builder.append_basic_block("tiles"), builder.append_basic_block("stored")
            builder.branch(loop)
            builder.position_at_end(loop)
            place = builder.phi(long)
            sums = [builder.phi(lanes) for _ in range(rows)]
            place.add_incoming(long(0), before)
            at = builder.add(tiles, builder.mul(place, long(COLUMNS * DEPTH)))
            weights = builder.load(builder.inttoptr(at, lanes.as_pointer()), align=64)
            here = builder.add(x, builder.mul(place, long(DEPTH)))
            code = ir.InlineAsm(ir.FunctionType(lanes, [lanes, lanes, lanes]), "vpdpbusd $2, $1, $0", "=v,v,v,0", side_effect=False)
            found = []
            for row, total in enumerate(sums):
                total.add_incoming(ir.Constant(lanes, [0] * COLUMNS), before)
                found.append(builder.call(code, [spread(lanes, builder.add(here, builder.mul(step, long(row)))), weights, total]))
            following = builder.add(place, long(1))
            place.add_incoming(following, loop)
            for total, value in zip(sums, found, strict=True):
                total.add_incoming(value, loop)
            builder.cbranch(builder.icmp_signed("<", following, deep), loop, done)
            builder.position_at_end(done)
            taken = builder.load(builder.inttoptr(offsets, lanes.as_pointer()), align=4)
            scale = builder.load(builder.inttoptr(scales, floats.as_pointer()), align=4)
            for row, value in enumerate(found):
                mine = builder.fmul(spread(floats, builder.add(steps, long(4 * row))), scale)
                product = builder.fmul(builder.sitofp(builder.sub(value, taken), floats), mine)
                target = builder.add(out, builder.mul(wide, long(row)))
                builder.store(product, builder.inttoptr(target, floats.as_pointer()), align=4)
            return context.get_dummy_value()

        return types.none(*[whole] * 9), emit

    return multiplied


eight, single = _tile(TOGETHER), _tile(1)


llvm.initialize_native_asmparser()


@kernel
def _largest(bits: Any) -> Any:
    """Bits of the largest size among numbers: sizes are ordered as their bits are, and whole numbers compare without branches."""
    largest = np.int32(0)
    for j in range(len(bits)):
        size = np.int32(bits[j] & np.int32(0x7FFFFFFF))
        largest = size if size > largest else largest
    return largest


@kernel
def in_bytes(x: Any) -> Any:
    """Rows that are each rounded by a scale of their own.

    Args:
        x: float32 [n, rows].

    Returns:
        uint8 [n, rows, to the next four], `OFFSET` more than what each value is rounded to; and the scales, float32 [n].
    """
    n, rows = x.shape
    step = -(-rows // DEPTH) * DEPTH
    narrow, steps = np.empty((n, step), np.uint8), np.empty(n, np.float32)
    for t in range(n):
        row = x[t]
        highest = max(np.int32(_largest(row.view(np.int32))).view(np.float32), np.float32(1e-30))
        steps[t] = highest / np.float32(127)
        scale = np.float32(127) / highest
        mine = narrow[t]
        for j in range(rows):
            mine[j] = np.uint8(np.int32(row[j] * scale + np.float32(OFFSET + 0.5)))
        for j in range(rows, step):
            mine[j] = 0
    return narrow, steps


@kernel
def multiply_int8(x: Any, w: Any, block: Any, out: Any) -> None:
    """out = x w[block].

    Args:
        x: `in_bytes`.
        w: `Packed`.
        block: which of its matrices.
        out: float32 [n, columns], written.
    """
    (narrow, steps), columns = x, out.shape[1]
    if columns % COLUMNS == 0:
        _multiply(narrow, steps, w.tiles[block], w.scales[block], w.sums[block], out)
    else:
        room = np.empty((len(narrow), w.scales.shape[1]), np.float32)
        _multiply(narrow, steps, w.tiles[block], w.scales[block], w.sums[block], room)
        out[:] = room[:, :columns]


@kernel
def _multiply(narrow: Any, steps: Any, tiles: Any, scales: Any, offsets: Any, out: Any) -> None:
    """The products of rounded rows: float32 [n, tiles * 16]."""
    n, step = narrow.shape
    last, deep, wide = n - n % TOGETHER, step // DEPTH, 4 * out.shape[1]
    for tile in range(len(tiles)):
        at, first = tiles[tile].ctypes.data, tile * COLUMNS
        scale, offset = scales[first:].ctypes.data, offsets[first:].ctypes.data
        for t in range(0, last, TOGETHER):
            eight(narrow[t].ctypes.data, step, at, deep, steps[t:].ctypes.data, scale, offset, out[t, first:].ctypes.data, wide)
        for t in range(last, n):
            single(narrow[t].ctypes.data, step, at, deep, steps[t:].ctypes.data, scale, offset, out[t, first:].ctypes.data, wide)
