"""Running the contracts: Great Expectations checks, bad rows go to the quarantine, a broken contract stops the night."""

from __future__ import annotations

import importlib
import json
import pkgutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import pandas as pd

import expectations
from expectations.base import HAS_TEXT, text_columns
from expectations.by_block import FIRST
from expectations.columns import columns_suite, kinds_of
from expectations.engine import Engine, gx
from expectations.events import GoodEvents, check_events, on_disk
from expectations.kept_checks import KeptChecks
from expectations.outcome import Outcome, check_table, line_of, row_line
from expectations.rules import Contract
from nightloom.config import RunConfig
from nightloom.core.errors import ContractBroken, InputError
from nightloom.core.files import write_json
from nightloom.data.tables.blocks import StoredTable
from nightloom.data.tables.pictures import link, linked
from nightloom.data.tables.quarantine import Breach, Quarantine, separate
from nightloom.data.tables.schema import Tables

ORDER = ("items", "users", "events", "links")
"""Referenced tables come first, so that a foreign key needs a good row."""

NOT_SUITES = ("by_block", "by_value", "columns", "engine", "events", "kept_checks", "outcome", "rules", "run")


def check(
    tables: Tables, config: RunConfig, folder: Path, last: Mapping[str, int] | None, now: datetime, keep: Path | None = None
) -> dict[str, Any]:
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
        keep: where what is found of events in parts is kept for the next night (`expectations.kept_checks`); None: it is not.

    Returns:
        Figures (JSON values): rows, quarantined and bad_share (by table), reasons (table -> reason -> rows), rules and warnings.
        Of the good events: positive_share, users_with_one_event, oldest and newest (ISO 8601; the order where there is no time).

    Raises:
        ContractBroken: a limit is passed or a column is wrong; names table, column, rule, count, examples, quarantine and remedy.
        InputError: there is no suite of that name.
    """
    suite, engine = _suite(config.validation.suite), Engine(folder / "data_docs")
    tables = replace(tables)  # a copy, whose tables become the good rows one by one
    here = [name for name in ORDER if name in tables.present()]
    outcomes = {name: Outcome(len(tables.present()[name]) + len(tables.rejected.get(name, ()))) for name in here}
    for name, outcome in outcomes.items():
        _check_columns(engine, name, tables, config, outcome)
    fit, good_events = not any(outcome.stops for outcome in outcomes.values()), GoodEvents()
    for name, outcome in outcomes.items():
        rejected = tables.rejected.get(name)
        with Quarantine(folder / "quarantine", name, rejected) as quarantine:
            if fit:
                contract = suite.contracts(tables, config, last, now)[name]
                if name == "events":
                    with on_disk(tables.events, folder) as events, tempfile.TemporaryDirectory(prefix=".kept-", dir=folder) as scratch:
                        kept = None
                        if keep and len(events.ends) > 1:
                            kept = KeptChecks(keep, events, config, contract.rows, Path(scratch))
                        good_events = check_events(engine, events, config, contract, outcome, quarantine, folder / "events.parquet", kept)
                    tables.events = cast(pd.DataFrame, StoredTable(folder / "events.parquet"))
                else:
                    table = tables.present()[name].reset_index(drop=True)
                    good = _check_rows(engine, name, table, contract, outcome, quarantine)
                    setattr(tables, name, good)
                    check_table(engine, name, _with_helpers(name, good, tables), contract, outcome)
                    good.to_parquet(folder / f"{name}.parquet", index=False)
        outcome.file, outcome.quarantined = quarantine.file, quarantine.rows
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
    return _figures(outcomes, tables, good_events)


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
        outcome.checks.append(line_of(name, column, words, "critical", result.success, found, "column", len(tables.present()[name])))
        if not result.success:
            outcome.stops.append(f"{name}.{column}: {words}, but it {found}. Map the right column in data.columns.{name}.")


def _check_rows(
    engine: Engine, name: str, table: pd.DataFrame, contract: Contract, outcome: Outcome, quarantine: Quarantine
) -> pd.DataFrame:
    """Check the row rules; returns the good rows, and gives the bad ones with their reasons to the quarantine."""
    marked = {rule.flag: ~rule.broken(table) for rule in contract.rows if rule.breaks is not None}
    frame = table.assign(**marked)
    rules = [(rule, rule.expected()) for rule in contract.rows]
    results = engine.validate(frame, gx.ExpectationSuite(name=f"{name}, rows", expectations=[expected for _, expected in rules]))
    broken = [expected for (_, expected), result in zip(rules, results, strict=True) if not result.success]
    failing = iter(engine.failing(frame, broken))
    breaches = []
    for (rule, _), result in zip(rules, results, strict=True):
        rows = np.zeros(len(table), dtype=bool) if result.success else next(failing)
        if not result.success:
            breaches.append(Breach(rule.column, rule.name, rows))
        outcome.checks.append(row_line(name, rule, result.success, len(table), int(rows.sum()), table[rule.column][rows].head(FIRST)))
    good, bad = separate(table, breaches)
    quarantine.add(bad)
    return good


def _with_helpers(name: str, good: pd.DataFrame, tables: Tables) -> pd.DataFrame:
    """The good rows with the helper columns of the base contract's table rules."""
    if name == "items" and (columns := text_columns(tables)):
        return good.assign(
            **{HAS_TEXT: np.logical_or.reduce([good[column].str.contains(r"\S", na=False) for column in columns]).astype(float)}
        )
    return good


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


def _figures(outcomes: Mapping[str, Outcome], checked: Tables, good: GoodEvents) -> dict[str, Any]:
    oldest, newest = (at.isoformat() if isinstance(at, pd.Timestamp) else int(at) for at in (good.oldest, good.newest))
    return {
        "rows": {name: len(table) for name, table in checked.present().items()},
        "quarantined": {name: outcome.quarantined for name, outcome in outcomes.items()},
        "bad_share": {name: outcome.bad_share for name, outcome in outcomes.items()},
        "reasons": {name: _reasons(outcome, checked.rejected.get(name)) for name, outcome in outcomes.items()},
        "rules": sum(len(outcome.checks) for outcome in outcomes.values()),
        "warnings": [line for outcome in outcomes.values() for line in outcome.warnings],
        "positive_share": good.positive / good.rows,
        "users_with_one_event": int((good.of_user == 1).sum()),
        "oldest": oldest,
        "newest": newest,
    }
