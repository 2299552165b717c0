"""What the popularity penalty gives and costs: chosen on validation queries, measured on test queries.

    make nightly                                   # trains the model
    python -m benchmarks.popularity [--root mlruns] [--name movies-small ...] [--table FILE]

The penalty is chosen as a night does with `model.popularity_penalty: auto`: on validation queries, by the network before its refit and by
scorers that are fitted without the validation part. It is then measured on test queries with the night's model.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nightloom.config import RunConfig
from nightloom.core.sequences import Sequences
from nightloom.core.streaming import queries_of
from nightloom.evaluation.membership import before_refit
from nightloom.evaluation.trade_off import measure_trade_off
from nightloom.models.scorers.popularity import positive_counts
from nightloom.models.scorers.registry import fit_scorers
from nightloom.packaging.bundle import Bundle
from nightloom.runs.stages import Manifest
from nightloom.training.popularity_penalty import choose_penalty
from nightloom.training.validation import sample
from nightloom.training.warm_start import SEARCH_FILE

SHOWN = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the process's exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("mlruns"))
    parser.add_argument("--name", action="append", help="of a night; may be given several times")
    parser.add_argument("--queries", type=int, default=20_000, help="test queries that are looked at")
    parser.add_argument("--table", type=Path)
    given = parser.parse_args(arguments)
    parts = [part for name in given.name or ["movies-small"] for part in _of_night(given.root, name, given.queries)]
    text = "\n".join(
        [
            "# The popularity penalty",
            "",
            "What is taken off the final score for each standard deviation of log popularity, and what lists of ten become. Tail",
            "items are those beyond the most popular ones that together hold 80 % of all positive events in training. Intervals:",
            "95 %, users drawn.",
            "",
            *parts,
            f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({platform.machine()}). Command:",
            "",
            f"    python -m benchmarks.popularity {shlex.join(sys.argv[1:] if arguments is None else arguments)}".rstrip(),
            "",
        ]
    )
    print(text)
    if given.table:
        given.table.write_text(text, encoding="utf-8")
    return 0


def _of_night(root: Path, name: str, most: int) -> list[str]:
    """The lines of one night."""
    manifests = root / "nights" / name / "latest" / "manifests"
    tuned, prepared = (Manifest.load(manifests / f"{stage}.json").path for stage in ("fine_tune", "prepare"))
    protocol = next(path.parent.name for path in sorted(tuned.glob("*/bundle")))
    sequences, model = Sequences.load(prepared / f"sequences_{protocol}.npz"), Bundle.load(tuned / protocol / "bundle").recommender
    said: dict[str, Any] = {"exclude_seen": True, "seed": 0}
    before = positive_counts(sequences.train(), sequences.n_items)
    asked = sample(queries_of(protocol, sequences, "validation", exclude_seen=True), 0, sequences.n_items)
    limit = RunConfig.model_fields["model"].get_default().popularity_loss
    search = before_refit(model, tuned / protocol / SEARCH_FILE)
    if search is None:
        raise SystemExit(f"{tuned / protocol}: no {SEARCH_FILE}, so the choice can not be repeated. Run the night under a split in time.")
    search.scorers = fit_scorers(list(model.weights), sequences.train(), search.content, getattr(model.config, "min_support", 1))
    search.weights, search.newcomer_weights = model.weights, model.newcomer_weights
    choice = choose_penalty(search, asked, before, "auto", limit, **said)
    test, known = queries_of(protocol, sequences, "test", exclude_seen=True), sequences.train(with_validation=True)
    tried = tuple(sorted({*SHOWN, choice.strength}))
    more: dict[str, Any] = {"confidence": 0.95, "resamples": 1000, "most": most, "strengths": tried}
    found = measure_trade_off(model, test, positive_counts(known, sequences.n_items), **said, **more)
    none = found["rows"][0]
    lines = [
        f"## {name}: {found['queries']:,} test queries, {sequences.n_items:,} items",
        "",
        "| strength | NDCG@10 | difference | tail share | distinct tail items | ARP | Gini |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        mark = "**" if row["strength"] == choice.strength else ""
        apart = f"{100 * row['relative']:+.1f} % [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"
        tail, items = f"{row['aplt']:.3f} ({_more(row, none, 'aplt')})", f"{row['tail_items']:,.0f} ({_more(row, none, 'tail_items')})"
        figures = f"{row['ndcg_at_10']:.4f} | {apart} | {tail} | {items} | {row['arp']:,.0f} | {row['gini']:.3f}"
        lines.append(f"| {mark}{row['strength']:g}{mark} | {figures} |")
    if choice.loss is None or choice.error is None:
        return [*lines, ""]
    cost = f"{100 * choice.loss:.1f} % lost there, standard error {100 * choice.error:.1f}"
    told = f"Chosen on {choice.queries:,} validation queries, loss and its standard error at most {100 * limit:g} %:"
    return [*lines, "", told, f"{choice.strength:g} ({cost}).", ""]


def _more(row: dict[str, Any], none: dict[str, Any], key: str) -> str:
    return f"{100 * (row[key] / none[key] - 1):+.0f} %" if none[key] else "from none"


if __name__ == "__main__":
    sys.exit(main())
