"""Running the contracts: Great Expectations checks, bad rows go to the quarantine, a broken contract stops the night."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

import expectations
from expectations.base import HAS_TEXT, POSITIVE, text_columns
from expectations.columns import columns_suite, kinds_of
from expectations.engine import Engine, gx
from expectations.rules import Contract
from nightloom.config import RunConfig
from nightloom.core.errors import ContractBroken, InputError
from nightloom.core.files import write_json
from nightloom.data.preparation.labels import positive
from nightloom.data.tables.blocks import StoredTable
from nightloom.data.tables.coded import coded, write_spelt
from nightloom.data.tables.pictures import link, linked
from nightloom.data.tables.quarantine import Breach, separate, shown, write_quarantine
from nightloom.data.tables.schema import Tables

ORDER = ("items", "users", "events", "links")
"""Referenced tables come first, so that a foreign key needs a good row."""

EXAMPLES = 5
NOT_SUITES = ("by_value", "columns", "engine", "rules", "run")


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


def check(tables: Tables, config: RunConfig, folder: Path, last: Mapping[str, int] | None, now: datetime) -> dict[str, Any]:
    """Check the tables and separate good rows from bad.

    Three questions in turn: are the columns there and of their type, which rows break a rule, and can the good rows together be
    trained on? Writes good rows as `<table>.parquet`, bad ones with their reasons under `quarantine/`, Data Docs under
    `data_docs/`, and every rule's outcome as `checks.json`; all of it before a broken contract is raised.

    Args:
        tables: canonical tables of a snapshot.
        config: limits are in `validation`; `validation.suite` names the file with the contracts.
        folder: where to write; it exists.
        last: rows per table of the last night, None on the first.
        now: when the night runs, with time zone.

    Returns:
        Figures (JSON values): rows, quarantined and bad_share (by table), reasons (table -> reason -> rows), rules and warnings.
        Of the good events: positive_share, users_with_one_event, oldest and newest (ISO 8601; the order where there is no time).

    Raises:
        ContractBroken: a limit is passed or a column is wrong; names table, column, rule, count, examples, quarantine and remedy.
        InputError: there is no suite of that name.
    """
    suite, engine = _suite(config.validation.suite), Engine(folder / "data_docs")
    tables = replace(tables, events=coded(tables.events))  # a copy, whose tables become the good rows one by one
    here = [name for name in ORDER if name in tables.present()]
    outcomes = {name: Outcome(len(tables.present()[name]) + len(tables.rejected.get(name, ()))) for name in here}
    for name, outcome in outcomes.items():
        _check_columns(engine, name, tables, config, outcome)
    fit = not any(outcome.stops for outcome in outcomes.values())
    for name, outcome in outcomes.items():
        rejected, bad = tables.rejected.get(name), None
        if fit:
            contract = suite.contracts(tables, config, last, now)[name]
            good, bad = _check_rows(engine, name, tables.present()[name].reset_index(drop=True), contract, outcome)
            setattr(tables, name, good)
            _check_table(engine, name, _with_helpers(name, good, tables, config), contract, outcome)
            write_spelt(good, folder / f"{name}.parquet")
        outcome.file, outcome.quarantined = write_quarantine(folder / "quarantine", name, bad, rejected)
        limit = config.validation.of_table("max_bad_share", name)
        if outcome.bad_share > limit:
            outcome.stops.append(_too_many(name, outcome, rejected, limit))
    engine.write_docs()
    link(tables.pictures, folder)
    write_json(folder / "tables.json", {"features": tables.features})
    write_json(folder / "checks.json", [line for outcome in outcomes.values() for line in outcome.checks])
    stops = [line for outcome in outcomes.values() for line in outcome.stops]
    if stops:
        listed = "\n".join(f"- {line}" for line in stops)
        docs = folder / "data_docs" / "index.html"
        raise ContractBroken(f"the data contract is broken, nothing was trained:\n{listed}\nAll rules and what they found: {docs}", folder)
    return _figures(outcomes, tables, config)


def read_checked(folder: Path, *, in_blocks: bool = False) -> Tables:
    """The good rows that `check` wrote; events stay on disk where that is asked for (`nightloom.data.tables.blocks`)."""
    places = {name: path for name in ("events", "items", "users", "links") if (path := folder / f"{name}.parquet").exists()}
    read: Callable[[Path], Any] = StoredTable if in_blocks else pd.read_parquet
    found = {name: read(path) if name == "events" else pd.read_parquet(path) for name, path in places.items()}
    features = json.loads((folder / "tables.json").read_text(encoding="utf-8"))["features"]
    return Tables(found["events"], found.get("items"), found.get("users"), found.get("links"), features=features, pictures=linked(folder))


def _suite(name: str) -> ModuleType:
    known = sorted(found.name for found in pkgutil.iter_modules(expectations.__path__) if found.name not in NOT_SUITES)
    if name not in known:
        raise InputError(f"validation.suite: expectations/ has no '{name}'. There are: {', '.join(known)}.")
    return importlib.import_module(f"expectations.{name}")


def _check_columns(engine: Engine, name: str, tables: Tables, config: RunConfig, outcome: Outcome) -> None:
    types = kinds_of(tables.present()[name])
    suite = columns_suite(name, tables, config)
    for rule, result in zip(suite.expectations, engine.validate(types, suite), strict=True):
        column = rule.column
        if column in types:
            words, found = f"must hold {' or '.join(rule.value_set)}", f"holds {types[column].iloc[0]}"
        else:
            words, found = "must be there", f"is missing; columns there are {', '.join(types.columns)}"
        outcome.checks.append(_line(name, column, words, "critical", result.success, found, "column", len(tables.present()[name])))
        if not result.success:
            outcome.stops.append(f"{name}.{column}: {words}, but it {found}. Map the right column in data.columns.{name}.")


def _check_rows(engine: Engine, name: str, table: pd.DataFrame, contract: Contract, outcome: Outcome) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Check the row rules; returns the good rows, and the bad ones with their reasons."""
    marked = {rule.flag: ~rule.broken(table) for rule in contract.rows if rule.breaks is not None}
    frame = table.assign(**marked)
    rules = [(rule, rule.expected()) for rule in contract.rows]
    results = engine.validate(frame, gx.ExpectationSuite(name=f"{name}, rows", expectations=[expected for _, expected in rules]))
    broken = [expected for (_, expected), result in zip(rules, results, strict=True) if not result.success]
    failing = iter(engine.failing(frame, broken))
    breaches = []
    for (rule, _), result in zip(rules, results, strict=True):
        line = _line(name, rule.column, rule.name, "critical", result.success, "", "row", len(table))
        if not result.success:
            breach = Breach(rule.column, rule.name, next(failing))
            breaches.append(breach)
            line["bad"] = int(breach.rows.sum())
            line["share"] = line["bad"] / len(table)
            line["examples"] = [shown(value) for value in table[rule.column][breach.rows].head(1000).drop_duplicates().head(EXAMPLES)]
        outcome.checks.append(line)
    return separate(table, breaches)


def _check_table(engine: Engine, name: str, good: pd.DataFrame, contract: Contract, outcome: Outcome) -> None:
    """Check the table rules on the good rows."""
    suite = gx.ExpectationSuite(name=f"{name}, good rows", expectations=[rule.expectation for rule in contract.table])
    for rule, result in zip(contract.table, engine.validate(good, suite), strict=True):
        column = "" if rule.column in (POSITIVE, HAS_TEXT) else rule.column
        found = _found(result, share=rule.column in (POSITIVE, HAS_TEXT))
        outcome.checks.append(_line(name, column, rule.name, rule.severity, result.success, found, "table", len(good)))
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


def _with_helpers(name: str, good: pd.DataFrame, tables: Tables, config: RunConfig) -> pd.DataFrame:
    """The good rows with the helper columns of the base contract's table rules."""
    if name == "events":
        return good.assign(**{POSITIVE: _labels(good, config)})
    if name == "items" and (columns := text_columns(tables)):
        return good.assign(
            **{HAS_TEXT: np.logical_or.reduce([good[column].str.contains(r"\S", na=False) for column in columns]).astype(float)}
        )
    return good


def _labels(events: pd.DataFrame, config: RunConfig) -> np.ndarray:
    try:
        return positive(events, config.prepare).astype(float)
    except InputError:  # not one is positive: the balance rule says so, with its remedy
        return np.zeros(len(events))


def _line(name: str, column: str, rule: str, severity: str, passed: bool, found: str, scope: str, rows: int) -> dict[str, Any]:
    """An entry of checks.json; `scope` is column, row (the rule names what makes a row bad) or table, `rows` the rows checked."""
    line = {"table": name, "column": column, "rule": rule, "severity": severity, "passed": bool(passed), "found": found}
    return {**line, "scope": scope, "rows": rows, "bad": 0, "share": 0.0, "examples": []}


def _reasons(outcome: Outcome, rejected: pd.DataFrame | None) -> dict[str, int]:
    """Rows by reason, most frequent first; a row that breaks two rules counts in both."""
    counts = {f"{line['column']}: {line['rule']}": line["bad"] for line in outcome.checks if line["bad"]}
    if rejected is not None:
        counts |= {str(reason): int(count) for reason, count in rejected["reason"].value_counts().items()}
    return dict(sorted(counts.items(), key=lambda pair: -pair[1]))


def _too_many(name: str, outcome: Outcome, rejected: pd.DataFrame | None, limit: float) -> str:
    """The message for a table of which too many rows are bad."""
    examples = {f"{line['column']}: {line['rule']}": line["examples"] for line in outcome.checks if line["bad"]}
    if rejected is not None:
        examples |= {str(reason): rows["raw"].head(2).tolist() for reason, rows in rejected.groupby("reason")}
    rules = "".join(
        f"\n    {name}.{reason}: {count:,} rows ({count / outcome.arrived:.2%}), for example {', '.join(examples[reason])}"
        for reason, count in _reasons(outcome, rejected).items()
    )
    return (
        f"{name}: {outcome.quarantined:,} of {outcome.arrived:,} rows ({outcome.bad_share:.2%}) are bad, the limit is {limit:.2%} "
        f"(validation.max_bad_share).{rules}\n    All are kept with their reasons in {outcome.file}: mend the source, or raise the limit."
    )


def _figures(outcomes: Mapping[str, Outcome], checked: Tables, config: RunConfig) -> dict[str, Any]:
    events = checked.events
    times = events["timestamp" if "timestamp" in events else "order"]
    oldest, newest = (at.isoformat() if isinstance(at, pd.Timestamp) else int(at) for at in (times.min(), times.max()))
    return {
        "rows": {name: len(table) for name, table in checked.present().items()},
        "quarantined": {name: outcome.quarantined for name, outcome in outcomes.items()},
        "bad_share": {name: outcome.bad_share for name, outcome in outcomes.items()},
        "reasons": {name: _reasons(outcome, checked.rejected.get(name)) for name, outcome in outcomes.items()},
        "rules": sum(len(outcome.checks) for outcome in outcomes.values()),
        "warnings": [line for outcome in outcomes.values() for line in outcome.warnings],
        "positive_share": float(_labels(events, config).mean()),
        "users_with_one_event": int((events["user_id"].value_counts() == 1).sum()),
        "oldest": oldest,
        "newest": newest,
    }
