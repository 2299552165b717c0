"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

from tests.skips import pytest_make_collect_report, pytest_runtest_makereport  # noqa: F401  # hooks that pytest finds here

settings.register_profile("nightloom", deadline=None)  # machines are busy, and no test is about seconds
settings.load_profile("nightloom")
