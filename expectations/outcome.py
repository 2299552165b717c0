"""What is found about one table: an entry a rule, what stops the night, what is noted."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from expectations.base import HAS_TEXT, POSITIVE
from expectations.engine import Engine, Known, gx
from expectations.rules import Contract, RowRule
from nightloom.data.tables.quarantine import shown

EXAMPLES = 5


@dataclass
class Outcome:
    """The outcome of one table.

    Attributes:
        arrived: rows that arrived, including those that could not be read.
        quarantined: rows in the quarantine.
        file: the quarantine file to open.
        checks: one entry a rule, as in checks.json.
        stops: what stops the night, in words.
        warnings: what is noted, in words.
    """

    arrived: int
    quarantined: int = 0
    file: Path | None = None
    checks: list[dict[str, Any]] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def bad_share(self) -> float:
        """Share of the arrived rows that went to the quarantine."""
        return self.quarantined / self.arrived if self.arrived else 0.0


def line_of(name: str, column: str, rule: str, severity: str, passed: bool, found: str, scope: str, rows: int) -> dict[str, Any]:
    """An entry of checks.json; `scope` is column, row (the rule names what makes a row bad) or table, `rows` the rows checked."""
    line = {"table": name, "column": column, "rule": rule, "severity": severity, "passed": bool(passed), "found": found}
    return {**line, "scope": scope, "rows": rows, "bad": 0, "share": 0.0, "examples": []}


def row_line(name: str, rule: RowRule, passed: bool, rows: int, bad: int, examples: pd.Series) -> dict[str, Any]:
    """An entry of checks.json on a row rule; of the values in the first rows that break it a few are shown."""
    line = line_of(name, rule.column, rule.name, "critical", passed, "", "row", rows)
    if not passed:
        line["bad"] = bad
        line["share"] = bad / rows
        line["examples"] = [shown(value) for value in examples.drop_duplicates().head(EXAMPLES)]
    return line


def check_table(engine: Engine, name: str, good: pd.DataFrame, contract: Contract, outcome: Outcome, known: Known | None = None) -> None:
    """Check the table rules on the good rows; see `Engine.validate`."""
    suite = gx.ExpectationSuite(name=f"{name}, good rows", expectations=[rule.expectation for rule in contract.table])
    for rule, result in zip(contract.table, engine.validate(good, suite, known), strict=True):
        column = "" if rule.column in (POSITIVE, HAS_TEXT) else rule.column
        found = _found(result, share=rule.column in (POSITIVE, HAS_TEXT))
        outcome.checks.append(line_of(name, column, rule.name, rule.severity, result.success, found, "table", len(good)))
        if not result.success:
            notes = outcome.stops if rule.severity == "critical" else outcome.warnings
            notes.append(f"{f'{name}.{column}' if column else name}: expected {rule.name}, found {found}; {rule.remedy}.")


def _found(result: Any, *, share: bool) -> str:
    """What Great Expectations measured: a value (a share of the rows in percent), or how many rows fail."""
    if "observed_value" in result.result:
        value = result.result["observed_value"]
        if value is None or pd.isna(value):
            return "none"
        if isinstance(value, int | float):
            return f"{value:.2%}" if share else f"{value:,.6g}"
        return str(value)
    if "unexpected_count" in result.result:
        return f"{result.result['unexpected_count']:,} of {result.result['element_count']:,} rows against it"
    raise RuntimeError(f"Great Expectations could not judge {result.expectation_config.type}: {result.exception_info}")
