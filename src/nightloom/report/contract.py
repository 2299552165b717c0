"""The data contract as the report shows it: every rule in words, rows checked, rows broken, verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

VERDICTS = {
    "kept": "passed",
    "set_aside": "rows set aside",
    "noted": "warning",
    "stopped": "stopped the night",
}
"""Verdict -> what the report calls it."""


@dataclass(frozen=True)
class Rule:
    """One line of the table.

    Attributes:
        subject: column, or "table".
        expected: the expectation in words.
        rows: rows that were checked.
        broken: rows that break it; None where the rule is about the table as a whole.
        found: what was measured, or examples of bad values; may be empty.
        verdict: a key of `VERDICTS`.
    """

    subject: str
    expected: str
    rows: int | None
    broken: int | None
    found: str
    verdict: str


def rules(checks: Sequence[Mapping[str, Any]]) -> dict[str, list[Rule]]:
    """Table -> its rules, those that are broken first.

    Args:
        checks: the content of checks.json.
    """
    tables: dict[str, list[Rule]] = {}
    for check in checks:
        tables.setdefault(check["table"], []).append(_rule(check))
    return {table: sorted(found, key=lambda rule: rule.verdict == "kept") for table, found in tables.items()}


def summary(checks: Sequence[Mapping[str, Any]]) -> str:
    """How many rules were checked and what came of them, in a sentence."""
    counts = dict.fromkeys(VERDICTS, 0)
    for check in checks:
        counts[_verdict(check)] += 1
    parts = [f"{counts['kept']:,} of {len(checks):,} rules passed"]
    parts += [f"{many:,} {words}" for verdict, words in _COUNTED.items() if (many := counts[verdict])]
    return ", ".join(parts) + "."


_COUNTED = {"set_aside": "set rows aside", "noted": "gave a warning", "stopped": "stopped the night"}


def _rule(check: Mapping[str, Any]) -> Rule:
    by_row = check["scope"] == "row"
    examples = ", ".join(map(str, check["examples"]))
    return Rule(
        subject=check["column"] or "table",
        expected=f"set aside if {check['rule']}" if by_row else check["rule"],
        rows=check["rows"],
        broken=check["bad"] if by_row else None,
        found=f"for example {examples}" if examples else check["found"],
        verdict=_verdict(check),
    )


def _verdict(check: Mapping[str, Any]) -> str:
    if check["passed"]:
        return "kept"
    if check["scope"] == "row":
        return "set_aside"
    return "stopped" if check["severity"] == "critical" else "noted"
