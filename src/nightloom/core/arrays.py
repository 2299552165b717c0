"""Arrays in a .npz file, mapped into memory: only what is read is loaded, and processes that read the same file share it.

`numpy.load` reads such a file too. It copies every array into each process, since `numpy.savez` aligns none.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from nightloom.core.files import whole_file

ALIGNED = 64
"""Bytes to which arrays are aligned; a multiple of every item's size."""
PADDING = 0xD935
"""Id of the extra field that Android's tools fill for the same purpose."""
LOCAL, ZIP64 = 30, 20
"""Bytes of a member's header without name and extra fields, and of the extra field for sizes of more than 4 GB."""
SMALL = 1 << 14
"""Arrays of fewer bytes are read."""


COPIED = 1 << 20
"""Bytes of a raw array that are copied at once."""


@dataclass(frozen=True)
class RawArray:
    """An array of one dimension in a file of its own, of which only what is read comes into memory.

    Attributes:
        path: the file; it holds the elements and nothing else.
        dtype: their type.
    """

    path: Path
    dtype: np.dtype[Any]

    def __len__(self) -> int:
        return self.path.stat().st_size // self.dtype.itemsize

    def read(self, first: int, last: int) -> NDArray[Any]:
        """Elements `first` to before `last`."""
        return np.fromfile(self.path, self.dtype, max(last - first, 0), offset=first * self.dtype.itemsize)

    def add(self, values: NDArray[Any]) -> None:
        """Write values after the others; they are of the same type."""
        with self.path.open("ab") as file:
            values.astype(self.dtype, casting="no", copy=False).tofile(file)


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays as .npz, without pickles; who has an earlier file of that name mapped keeps it. A `RawArray` is copied file to file."""
    with whole_file(path) as temporary, temporary.open("wb") as file, ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            member = ZipInfo(f"{name}.npy")
            start = file.tell() + LOCAL + len(member.filename) + 4 + ZIP64
            room = -start % ALIGNED
            member.extra = struct.pack("<HH", PADDING, room) + bytes(room)
            with archive.open(member, "w", force_zip64=True) as out:
                if isinstance(array, RawArray):
                    said = {"descr": npy.dtype_to_descr(array.dtype), "fortran_order": False, "shape": (len(array),)}
                    npy.write_array_header_1_0(out, said)
                    with array.path.open("rb") as raw:
                        shutil.copyfileobj(raw, out, COPIED)
                else:
                    npy.write_array(out, np.asarray(array), allow_pickle=False)


def map_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a .npz file; those that are large and aligned are mapped, and a change of them stays in this process.

    Raises:
        ValueError: it holds Python objects.
        zipfile.BadZipFile: it is no whole .npz file.
    """
    found: dict[str, NDArray[Any]] = {}
    with path.open("rb") as file, ZipFile(file) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            place = _place(file, member) if member.compress_type == ZIP_STORED and member.file_size >= SMALL else None
            if place is None:
                with archive.open(member) as content:
                    found[name] = npy.read_array(content, allow_pickle=False)
            else:
                shape, fortran, dtype, offset = place
                found[name] = np.memmap(path, dtype, "c", offset, shape, "F" if fortran else "C").view(np.ndarray)
    return found


def _place(file: BinaryIO, member: ZipInfo) -> tuple[tuple[int, ...], bool, np.dtype[Any], int] | None:
    """Shape, order, type and place of a member's array; None where it can not be mapped."""
    file.seek(member.header_offset + LOCAL - 4)
    name, extra = struct.unpack("<HH", file.read(4))
    file.seek(name + extra, 1)
    if npy.read_magic(file) != (1, 0):
        return None
    shape, fortran, dtype = npy.read_array_header_1_0(file)
    return None if dtype.hasobject or file.tell() % ALIGNED else (shape, fortran, dtype, file.tell())
