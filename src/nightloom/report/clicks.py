"""The table of click models side by side: mean and spread over seeds, for a terminal, as Markdown, and as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from nightloom.core.markup import plain_markdown

COLUMNS = (
    "model",
    "AUC",
    "log-loss",
    "NE",
    "ECE",
    "ECE of true probabilities",
    "validation AUC",
    "validation log-loss",
    "calibration",
    "CPU s",
)
COLUMNS_SHOWN = 12
"""Columns of which it is said how much they count."""
NOTE = (
    "Test part: AUC (more is better), log-loss in nats, normalised entropy NE and expected calibration error ECE (less is better; ten bins "
    "of equal mass). `ECE of true probabilities` is the ECE that the true probabilities would have on so many rows. All settings and the "
    "calibration were chosen on the validation part. There a single LightGBM is measured; in the test, the mean of as many as the head has "
    "networks."
)


def rows(results: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """A row a model, smallest log-loss on the test part first.

    Args:
        results: what `nightloom.experiments.click_baselines.fit_and_measure` gave, of one or several seeds a model.
    """
    by_family: dict[str, list[Mapping[str, Any]]] = {}
    for one in results:
        by_family.setdefault(one["family"], []).append(one)

    def cell(found: Sequence[Mapping[str, Any]], part: str, name: str, digits: int = 4) -> str:
        values = np.array([one[part][name] for one in found])
        return f"{values.mean():.{digits}f}" + (f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else "")

    table = []
    for family, found in sorted(by_family.items(), key=lambda item: float(np.mean([one["test"]["log_loss"] for one in item[1]]))):
        cells = [
            family,
            *(cell(found, "test", name) for name in ("auc", "log_loss", "ne")),
            cell(found, "test", "ece", 3),
            f"{np.mean([one['noise'] for one in found]):.3f}",
            *(cell(found, "validation", name) for name in ("auc", "log_loss")),
            ", ".join(dict.fromkeys(one["calibrator"] for one in found)),
            f"{np.mean([one['cpu_seconds'] for one in found]):.0f}",
        ]
        table.append(dict(zip(COLUMNS, cells, strict=True)))
    return table


def apart(differences: Mapping[str, Mapping[str, Sequence[float]]], confidence: float) -> list[str]:
    """A line a model: its difference from LightGBM on the same test rows."""
    words = {"auc": "AUC", "log_loss": "log-loss", "ne": "NE", "ece": "ECE"}
    return [
        f"{family} minus lightgbm ({confidence:.0%}, paired): "
        + "; ".join(f"{words[name]} {by:+.4f} ({low:+.4f} to {high:+.4f})" for name, (by, low, high) in found.items())
        for family, found in differences.items()
    ]


def markdown(title: str, results: Sequence[Mapping[str, Any]], lines: Sequence[str], said: str) -> str:
    """The table of one data set with its notes."""
    of = results[0]["rows"]
    head = f"{of['learnt']:,} rows for training and validation; test part: {of['test']:,} rows, {of['clicks']:,} clicks."
    table = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    table += ["| " + " | ".join(row.values()) + " |" for row in rows(results)]
    return "\n\n".join([f"## {title}", head, "\n".join(table), *lines, said]) + "\n"


def shown(title: str, results: Sequence[Mapping[str, Any]]) -> Table:
    """The table for a terminal, without the validation columns."""
    kept = [column for column in COLUMNS if not column.startswith("validation")]
    table = Table(title=title, title_justify="left", title_style="bold", box=None, header_style="dim")
    for number, column in enumerate(kept):
        table.add_column(column, justify="right" if number else "left")
    for row in rows(results):
        table.add_row(*(row[column] for column in kept))
    return table


def trees(found: Mapping[str, Any]) -> str:
    """What LightGBM's answers rest on, as Markdown: the columns that count most (`nightloom.explain.click_trees`)."""
    lines = [f"| {plain_markdown(one['column'])} | {one['mean_size']:.4f} |" for one in found["columns"][:COLUMNS_SHOWN]]
    said = f"Mean size of each column's Shapley value, in log-odds, over {found['rows']:,} test rows (shap: TreeExplainer)."
    return "\n".join(["", "## What LightGBM looks at", "", said, "", "| column | mean size |", "|---|---|", *lines, ""])
