"""Skips that a machine should not have fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.skips import MAY_SKIP

ROOT = Path(__file__).parents[2]
SKIPPED = """
import pytest

def test_there():
    pass

@pytest.mark.xfail(strict=True)
def test_known():
    raise ValueError

def test_browser():
    pytest.skip("no Chromium here")

@pytest.mark.skipif(True, reason="no systemd here")
def test_units():
    pass
"""
MODULE = 'import pytest\n\npytest.importorskip("no_such_module_at_all")\n\ndef test_it(): ...\n'


@pytest.mark.parametrize(
    ("may", "counts"),
    [
        (None, "1 passed, 3 skipped, 1 xfailed"),
        ("Chromium|systemd|no_such_module", "1 passed, 3 skipped, 1 xfailed"),
        ("systemd|no_such_module", "1 failed, 1 passed, 2 skipped, 1 xfailed"),
        ("", "1 failed, 1 passed, 1 xfailed, 2 errors"),
    ],
)
def test_a_skip_for_another_reason_fails(tmp_path: Path, may: str | None, counts: str) -> None:
    (tmp_path / "test_some.py").write_text(SKIPPED)
    (tmp_path / "test_module.py").write_text(MODULE)
    environment = {name: value for name, value in os.environ.items() if name != MAY_SKIP and not name.startswith("PYTEST_")}
    environment |= {"PYTHONPATH": str(ROOT)} | ({} if may is None else {MAY_SKIP: may})
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.skips", "-p", "no:cacheprovider", "--continue-on-collection-errors", "."],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert counts in done.stdout.splitlines()[-1], done.stdout
    assert done.returncode == int("1 failed" in counts)
