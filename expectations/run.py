"""Running the contracts: Great Expectations checks, bad rows go to the quarantine, a broken contract stops the night."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

import expectations
from expectations.base import labelled
from expectations.engine import Engine, gx
from expectations.rules import Contract
from nightloom.config import RunConfig
from nightloom.data.quarantine import Breach, separate, shown, write_quarantine
from nightloom.data.schema import Tables
from nightloom.errors import ContractBroken, InputError
from nightloom.stage import write_json

EXAMPLES = 5
NOT_SUITES = ("engine", "rules", "run")


def check(tables: Tables, config: RunConfig, folder: Path, last: Mapping[str, int] | None, now: datetime) -> dict[str, Any]:
    """Check the tables and part good rows from bad.

    Writes good rows as `<table>.parquet`, bad ones with their reasons under `quarantine/`, Data Docs under
    `data_docs/`, and every rule's outcome as `checks.json`; all of it before a broken contract is raised.

    Args:
        tables: canonical tables of a snapshot.
        config: limits are in `validation`; `validation.suite` names the file with the contracts.
        folder: where to write.
        last: rows per table of the last night, None on the first.
        now: when the night runs, with time zone.

    Returns:
        Figures: rows and quarantined (by table), reasons (table -> reason -> rows), rules, warnings.

    Raises:
        ContractBroken: a limit is passed; names table, column, rule, count, examples, quarantine and remedy.
    """
    contracts = _suite(config.validation.suite).contracts(tables, config, last, now)
    engine = Engine(folder / "data_docs")
    figures: dict[str, Any] = {"rows": {}, "quarantined": {}, "reasons": {}, "rules": 0, "warnings": []}
    checks: list[dict[str, Any]] = []
    broken: list[str] = []
    for name, table in tables.present().items():
        found = _check_table(engine, name, table, contracts[name], config)
        good, bad = separate(table, [Breach(one["column"], one["rule"], one.pop("rows")) for one in found if "rows" in one])
        rejected = tables.rejected.get(name)
        file, aside = write_quarantine(folder / "quarantine", name, bad, rejected)
        good.to_parquet(folder / f"{name}.parquet", index=False)
        if rejected is not None:
            for reason, count in rejected["reason"].value_counts().items():
                found.append({"table": name, "column": "", "rule": str(reason), "bad": int(count), "passed": False, "severity": "critical",
                              "examples": rejected["raw"][rejected["reason"] == reason].head(2).tolist()})  # fmt: skip
        figures["rows"][name], figures["quarantined"][name] = len(good), aside
        figures["reasons"][name] = {f"{one['column']}: {one['rule']}".removeprefix(": "): one["bad"] for one in found if one.get("bad")}
        broken += _broken(name, found, aside, len(table) + len(rejected if rejected is not None else ()), file, config)
        figures["warnings"] += [one["told"] for one in found if "told" in one and not one["passed"] and one["severity"] == "warning"]
        checks += found
    figures["rules"] = len(checks)
    (folder / "tables.json").write_text(json.dumps({"features": tables.features}), encoding="utf-8")
    write_json(folder / "checks.json", checks)
    engine.write_docs()
    if broken:
        raise ContractBroken("the data contract is broken, nothing was trained:\n" + "\n".join(f"- {line}" for line in broken))
    return figures


def read_checked(folder: Path) -> Tables:
    """The good rows that `check` wrote."""
    found = {name: pd.read_parquet(path) for name in ("events", "items", "users", "links") if (path := folder / f"{name}.parquet").exists()}
    features = json.loads((folder / "tables.json").read_text(encoding="utf-8"))["features"]
    return Tables(found["events"], found.get("items"), found.get("users"), found.get("links"), features=features)


def _suite(name: str) -> ModuleType:
    known = sorted(found.name for found in pkgutil.iter_modules(expectations.__path__) if found.name not in NOT_SUITES)
    if name not in known:
        raise InputError(f"validation.suite: expectations/ has no '{name}'. There are: {', '.join(known)}.")
    return importlib.import_module(f"expectations.{name}")


def _check_table(engine: Engine, name: str, table: pd.DataFrame, contract: Contract, config: RunConfig) -> list[dict[str, Any]]:
    """Outcome of each rule; row rules also hold `rows`, the mask of those that break it."""
    masks = [rule.breaks(table).to_numpy(dtype=bool, na_value=False) for rule in contract.rows]
    helpers = {rule.flag: ~mask for rule, mask in zip(contract.rows, masks, strict=True) if rule.expectation is None}
    if name == "events":
        helpers["positive__"] = labelled(table, config).to_numpy()
    frame = table.assign(**helpers)
    expected = [rule.expected() for rule in contract.rows] + [rule.expectation for rule in contract.table]
    results = engine.validate(frame, gx.ExpectationSuite(name=name, expectations=expected))
    found: list[dict[str, Any]] = []
    for row_rule, mask in zip(contract.rows, masks, strict=True):
        examples = [shown(value) for value in table[row_rule.column][mask].head(EXAMPLES)]
        found.append({"table": name, "column": row_rule.column, "rule": row_rule.name, "bad": int(mask.sum()), "passed": not mask.any(),
                      "severity": "critical", "examples": examples, "rows": mask})  # fmt: skip
    for rule, result in zip(contract.table, results[len(masks) :], strict=True):
        seen = result.result.get("observed_value")
        where = f"{name}.{rule.column}" if rule.column and not rule.column.endswith("__") else name
        told = f"{where}: expected {rule.name}, found {seen}; {rule.remedy}."
        found.append({"table": name, "column": rule.column, "rule": rule.name, "bad": 0, "passed": bool(result.success),
                      "severity": rule.severity, "examples": [], "told": told})  # fmt: skip
    return found


def _broken(name: str, found: list[dict[str, Any]], aside: int, total: int, file: Path, config: RunConfig) -> list[str]:
    """What stops the night, in words."""
    lines = [one["told"] for one in found if "told" in one and not one["passed"] and one["severity"] == "critical"]
    limit = config.validation.max_bad_share
    if total and aside / total > limit:
        worst = max(found, key=lambda one: one["bad"])
        examples = ", ".join(worst["examples"]) or "none"
        where = f"{name}.{worst['column']}" if worst["column"] else name
        lines.append(
            f"{name}: {aside:,} of {total:,} rows ({aside / total:.1%}) are bad, the limit is {limit:.1%}. "
            f"Most break {where}: {worst['rule']} ({worst['bad']:,} rows, for example {examples}). All are kept in {file}: mend the source, or raise validation.max_bad_share."
        )
    return lines
