"""The results of a tuning, as rows of a table and on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from nightloom.core.shell import typed
from nightloom.training.search import Tuned

MOST = 10
"""Most trials that a terminal shows."""


def rows(tuned: Tuned) -> list[dict[str, Any]]:
    """A row a trial, the best first, those that were stopped early last."""
    ordered = sorted(tuned.attempts, key=lambda one: (one.ndcg is None, -(one.ndcg or 0.0), one.number))
    return [
        {
            "trial": f"{one.number}{' (as given)' if one is tuned.given else ''}",
            "validation NDCG@10": round(one.ndcg, 4) if one.ndcg is not None else f"{one.state} after {len(one.curve)} epochs",
            **{key: round(value, 5) if isinstance(value, float) else value for key, value in one.values.items()},
            "seconds": round(one.seconds, 1),
        }
        for one in ordered
    ]


def importances(tuned: Tuned) -> list[dict[str, Any]]:
    """A row a config key, the most important first; empty with too few trials."""
    return [{"key": key, "importance": round(share, 3)} for key, share in sorted(tuned.importance.items(), key=lambda one: -one[1])]


def headline(tuned: Tuned) -> str:
    """One sentence: the best trial against the config as given."""
    stopped = sum(one.state == "pruned" for one in tuned.attempts)
    tried = f"{len(tuned.attempts)} trials, {stopped} stopped early"
    if tuned.best.number == tuned.given.number:
        return f"{tried}: none is better than the config as given (validation NDCG@10 {tuned.given.ndcg:.4f})"
    found = f"validation NDCG@10 {tuned.best.ndcg:.4f} in trial {tuned.best.number}"
    return f"{tried}: {found}, {tuned.given.ndcg:.4f} with the config as given"


def print_tuned(tuned: Tuned, preset: str, console: Console) -> None:
    """Print the headline, the best trials, the most important keys, and what to do next."""
    console.print()
    console.print(headline(tuned), style="bold", markup=False, highlight=False)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    shown = rows(tuned)[:MOST]
    for name in shown[0]:
        table.add_column(name.rpartition(".")[2].replace("_", " "), justify="left" if name == "trial" else "right")
    for row in shown:
        table.add_row(*(str(value) for value in row.values()))
    console.print(table)
    if shares := importances(tuned):
        said = ", ".join(f"{row['key']} {row['importance']:.0%}" for row in shares)
        console.print(f"Most important keys: {said}", markup=False, highlight=False)
    console.print(f"A night with it: {typed('nightloom', 'night', preset)}", markup=False, highlight=False, soft_wrap=True)
