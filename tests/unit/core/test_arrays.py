"""Arrays mapped from a .npz file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nightloom.core.arrays import SMALL, map_arrays, write_arrays
from nightloom.core.sequences import Sequences

ARRAYS = {
    "long_name_of_an_array": np.arange(SMALL, dtype=np.int32),
    "b": np.random.default_rng(0).random((SMALL // 8, 3)),
    "turned": np.asfortranarray(np.arange(2 * SMALL, dtype=np.int64).reshape(2, -1)),
    "flags": np.arange(SMALL + 5) % 3 == 0,
    "one": np.int64(7),
    "none": np.zeros(0, dtype=np.int64),
}


def mapped(array: np.ndarray) -> bool:
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return True
        array = array.base  # type: ignore[assignment]
    return False


def test_arrays_come_back_aligned_and_numpy_reads_them_too(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.npz", ARRAYS)
    found = map_arrays(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as plain:
        for name, array in ARRAYS.items():
            for one in (found[name], plain[name]):
                np.testing.assert_array_equal(one, array, strict=True)
    assert {name for name in ARRAYS if mapped(found[name])} == {"long_name_of_an_array", "b", "turned", "flags"}
    assert all(array.ctypes.data % 64 == 0 and array.flags.aligned for array in found.values() if mapped(array))


def test_what_numpy_wrote_is_read(tmp_path: Path) -> None:
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **ARRAYS)
        for name, array in map_arrays(tmp_path / "a.npz").items():
            np.testing.assert_array_equal(array, ARRAYS[name], strict=True)


def test_a_change_stays_in_the_process_and_a_new_file_beside_it(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.npz", ARRAYS)
    before = map_arrays(tmp_path / "a.npz")
    before["b"][0, 0] = -1
    assert map_arrays(tmp_path / "a.npz")["b"][0, 0] == ARRAYS["b"][0, 0]
    write_arrays(tmp_path / "a.npz", {"b": np.zeros(5)})
    np.testing.assert_array_equal(before["flags"], ARRAYS["flags"])


def test_objects_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.array([{}] * SMALL, dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        map_arrays(tmp_path / "a.npz")


def test_sequences_take_no_memory_until_they_are_read(tmp_path: Path) -> None:
    events, users = 4_000_000, 1000
    offsets = np.linspace(0, events, users + 1).astype(np.int64)
    zeros = np.zeros(events, dtype=np.int64)
    made = Sequences(offsets, zeros.astype(np.int32), zeros, zeros.astype(np.int16), zeros == 0, offsets[1:], offsets[1:], 5)
    made.save(tmp_path / "s.npz")
    code = (
        "import resource, sys; from pathlib import Path; from nightloom.core.sequences import Sequences; "
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; found = Sequences.load(Path(sys.argv[1])); "
        "assert found.n_users == 1000 and found.times[-1] == 0; "
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)"
    )
    told = subprocess.run([sys.executable, "-c", code, str(tmp_path / "s.npz")], capture_output=True, text=True, check=True)
    assert float(told.stdout) < 15  # MB, of 96 in the file
