"""Folders that are not whole yet: what a kill left goes with the next one, what another process works in stays."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nightloom.core.files import PARTIAL, partial_folder, whole_folder

KILLED = """
import os, signal, sys
from pathlib import Path
from nightloom.core.files import whole_folder
with whole_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def partials(home: Path) -> list[Path]:
    return sorted(home.glob(f"{PARTIAL}*"))


def test_what_a_killed_process_left_goes_with_the_next_one(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "made")], check=False)
    (left,) = partials(tmp_path)
    assert (left / "half").read_text() == "half"
    with whole_folder(tmp_path / "made") as folder:
        (folder / "whole").write_text("whole")
        assert partials(tmp_path) == [folder]
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["whole"]


def test_what_another_works_in_stays(tmp_path: Path) -> None:
    with partial_folder(tmp_path) as first:
        (first / "half").write_text("half")
        with partial_folder(tmp_path) as second:
            assert partials(tmp_path) == sorted([first, second])
        assert (first / "half").read_text() == "half"
    assert not partials(tmp_path)


def test_many_at_once_take_nothing_from_each_other(tmp_path: Path) -> None:
    def work(number: int) -> str:
        with partial_folder(tmp_path) as folder:
            (folder / "own").write_text(str(number))
            return (folder / "own").read_text()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(200))) == [str(number) for number in range(200)]
    assert not partials(tmp_path)


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no"), whole_folder(tmp_path / "made"):
        raise ValueError("no")
    assert not list(tmp_path.iterdir())
