"""One rule = what Great Expectations checks and which rows break it, said once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from expectations.engine import gxe

Severity = Literal["critical", "warning"]
FLAG = "ok__"
"""Prefix of the helper columns that say for each row whether it keeps a rule that looks beyond its own column."""


@dataclass(frozen=True)
class RowRule:
    """A rule that each row keeps or breaks; rows that break it go to the quarantine.

    Attributes:
        column: the column it is about.
        name: short and plain, as people read it in the quarantine.
        breaks: table -> bool [rows], true where the rule is broken.
        expectation: what Great Expectations checks. None: that `breaks` is false everywhere, through a helper column
            (a large value_set is slow, and some rules look at two tables).
    """

    column: str
    name: str
    breaks: Callable[[pd.DataFrame], pd.Series]
    expectation: Any = None

    @property
    def flag(self) -> str:
        """Name of the helper column."""
        return f"{FLAG}{self.column}_{self.name}".replace(" ", "_")

    def expected(self) -> Any:
        """The expectation for Great Expectations."""
        if self.expectation is not None:
            return self.expectation
        return gxe.ExpectColumnValuesToBeInSet(column=self.flag, value_set=[True], severity="critical", notes=f"{self.column}: {self.name}")


@dataclass(frozen=True)
class TableRule:
    """A rule about a whole table; a critical one stops the night.

    Attributes:
        column: the column it is about, or "" for the table.
        name: short and plain.
        expectation: what Great Expectations checks.
        remedy: what to do when it is broken.
        severity: critical stops the night, warning is reported.
    """

    column: str
    name: str
    expectation: Any
    remedy: str
    severity: Severity = "critical"


@dataclass(frozen=True)
class Contract:
    """All rules of one table."""

    rows: tuple[RowRule, ...] = ()
    table: tuple[TableRule, ...] = ()
