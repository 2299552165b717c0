"""A skip that the machine should not have fails, where NIGHTLOOM_TESTS_MAY_SKIP says which it may have (`.ci/run` does)."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from typing import TypeVar

import pytest

MAY_SKIP = "NIGHTLOOM_TESTS_MAY_SKIP"
"""A pattern of the reasons for which tests may be skipped here. Unset: every reason will do."""

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def judged(report: Report) -> Report:
    """The report, which fails where its test was skipped for a reason that the pattern does not know."""
    pattern = os.environ.get(MAY_SKIP)
    if pattern is None or not report.skipped or hasattr(report, "wasxfail"):
        return report
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not (pattern and re.search(pattern, reason)):
        report.outcome = "failed"
        report.longrepr = f"{reason}: this machine should not skip that. It may skip, by {MAY_SKIP}: {pattern or 'nothing'}"
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return judged((yield))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return judged((yield))
