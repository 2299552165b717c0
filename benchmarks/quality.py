"""Ranking quality of the full model and of what is left when a part is taken away, over several seeds.

    python -m benchmarks.quality --preset movies-small --seeds 7 8 9 --minutes 3 [--variants full no_text] [--table FILE]

Each run trains on the preset's data by `fine_tune`, chooses its epoch and the fusion on validation, and is asked once about the
test: the whole catalogue is ranked, seen items are left out. Runs are kept under `<mlruns>/bench/`, so a benchmark that was
cut off goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from nightloom.config import RunConfig, load_config, load_preset
from nightloom.core.errors import NightloomError
from nightloom.core.metrics import per_query
from nightloom.core.ranking import Ranked, ranks
from nightloom.core.sequences import Queries, Sequences
from nightloom.core.streaming import queries_of
from nightloom.data.collect import collect
from nightloom.data.preparation.prepare import prepare
from nightloom.data.tables.snapshot import read_snapshot
from nightloom.encoders.load_pretrained import load_pretrained
from nightloom.evaluation.plots import figure
from nightloom.packaging.bundle import Bundle
from nightloom.training.fine_tune import fine_tune

VARIANTS: dict[str, list[str]] = {
    "full": [],
    "no_text": ["model.use_text=false"],
    "no_attributes": ["model.use_attributes=false"],
    "no_ids": ["model.use_ids=false"],
    "ids_alone": ["model.use_text=false", "model.use_attributes=false"],
    "no_time": ["model.use_time=false"],
}
"""What each variant changes in the config. Scorers, and the network, are taken away when a run is asked, without training anew."""

HEADER = (
    "variant",
    "seeds",
    "HR@10",
    "NDCG@10",
    "before the re-ranker",
    "network alone",
    "scorers alone",
    "HR@10, unseen items",
    "network's share",
    "epochs",
    "CPU min",
)


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the process's exit code."""
    given = parse(arguments)
    console, root = Console(), Path(os.environ.get("NIGHTLOOM_ROOT", "mlruns"))
    try:
        first = config_of(given, "full", given.seeds[0])
        home = root / "bench" / "quality" / first.name
        prepared, pretrained = home / "prepared", home / "pretrained"
        for place in (prepared, pretrained):
            place.mkdir(parents=True, exist_ok=True)
        prepare(
            read_snapshot(collect(first.name, first.data, root).path),
            prepared,
            prepare=first.prepare,
            evaluation=first.evaluation,
            tags_separator=first.data.tags_separator,
        )
        load_pretrained(first.pretrained, prepared, root, pretrained)
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in given.variants}
        for seed in given.seeds:
            for name in given.variants:
                config = config_of(given, name, seed)
                console.print(f"{name}, seed {seed} ...", highlight=False)
                folder = run_folder(home, given.protocol, name, seed, config)
                found[name].append(measure(config, given.protocol, prepared, pretrained, folder))
                console.print(f"  {found[name][-1]}", highlight=False)
    except NightloomError as error:
        console.print(str(error), style="red", markup=False)
        return error.exit_code
    rows = [row(name, runs) for name, runs in found.items()]
    shown = Table(*HEADER)
    for one in rows:
        shown.add_row(*one)
    console.print(shown)
    if given.plot:
        curves = {}
        for name in given.variants:
            for seed in given.seeds:
                config = config_of(given, name, seed)
                lines = json.loads((run_folder(home, given.protocol, name, seed, config) / "curves.json").read_text(encoding="utf-8"))
                curves[f"{name}, seed {seed}"] = lines
        draw(given.plot, curves, f"{first.name}, {given.protocol}: quality of the network by time of training")
    if given.table:
        given.table.write_text(markdown(rows, given, sys.argv[1:] if arguments is None else arguments), encoding="utf-8")
    return 0


def run_folder(home: Path, protocol: str, variant: str, seed: int, config: RunConfig) -> Path:
    """Where one run is kept."""
    return home / protocol / f"{variant}-{seed}-{config.digest()[:12]}"


def draw(path: Path, curves: dict[str, list[dict[str, Any]]], title: str) -> None:
    """Validation NDCG@10 by minutes of training, validation included, a line a run."""
    with figure(path, title, 4.0) as (axis,):
        for name, lines in curves.items():
            minutes = np.cumsum([line["seconds"] for line in lines]) / 60
            axis.plot(minutes, [line["validation_ndcg_at_10"] for line in lines], ".-", markersize=4, label=name)
        axis.set_xlabel("minutes")
        axis.set_ylabel("validation NDCG@10")
        axis.legend(frameon=False, fontsize=9)


def measure(config: RunConfig, protocol: str, prepared: Path, pretrained: Path, folder: Path) -> dict[str, Any]:
    """Train one run (or take what is there) and ask it about the test."""
    result = folder / "quality.json"
    if not result.exists():
        figures = fine_tune(config, protocol, prepared, pretrained, folder)
        sequences = Sequences.load(prepared / f"sequences_{protocol}.npz")
        queries = queries_of(protocol, sequences, "test", exclude_seen=config.evaluation.exclude_seen)
        recommender = Bundle.load(folder / "bundle").recommender
        fused = ranks(recommender, queries, exclude_seen=config.evaluation.exclude_seen)
        weights, share = dict(recommender.weights), sum(recommender.weights.values())
        parts: dict[str, dict[str, float]] = {"ndcg_network": {}}
        if weights:
            parts["ndcg_scorers"] = {name: weight / share for name, weight in weights.items()}
        reranker, recommender.reranker = recommender.reranker, None
        alone = (
            {"ndcg_retrieval": mean(ranks(recommender, queries, exclude_seen=config.evaluation.exclude_seen), "ndcg_at_10")}
            if reranker
            else {}
        )
        for part, recommender.weights in parts.items():
            alone[part] = mean(ranks(recommender, queries, exclude_seen=config.evaluation.exclude_seen), "ndcg_at_10")
        unseen = np.bincount(sequences.train(with_validation=True).items, minlength=sequences.n_items)[queries.targets] == 0
        content = {
            "hr": mean(fused, "hr_at_10"),
            "ndcg": mean(fused, "ndcg_at_10"),
            **alone,
            "validation": figures["validation_ndcg_at_10"],
            "unseen_hits": int(within_ten(fused, queries)[unseen].sum()),
            "unseen": int(unseen.sum()),
            "weights": weights,
            "epochs": figures["epochs"],
            "cpu_seconds": figures["cpu_seconds"],
        }
        result.write_text(json.dumps(content) + "\n", encoding="utf-8")
    kept: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return kept


def mean(ranked: Ranked, metric: str) -> float:
    """A metric's mean over queries."""
    return float(per_query(ranked.ranks, ranked.offsets)[metric].mean())


def within_ten(ranked: Ranked, queries: Queries) -> np.ndarray:
    """Whether each held-out item is among the first ten, bool [rows]."""
    if len(ranked.ranks) != len(queries.targets):
        raise NightloomError(f"{len(ranked.ranks):,} ranks for {len(queries.targets):,} held-out items: they are of other queries")
    return (ranked.ranks > 0) & (ranked.ranks <= 10)


def row(name: str, runs: list[dict[str, Any]]) -> tuple[str, ...]:
    """One variant's cells: means over seeds, with the standard deviation where there are several."""

    def spread(key: str) -> str:
        values = np.array([one[key] for one in runs if key in one])
        if not len(values):
            return "none"
        return f"{values.mean():.4f}" + (f" ± {values.std(ddof=1):.4f}" if len(values) > 1 else "")

    def many(key: str, digits: int = 0, scale: float = 1.0) -> str:
        return ", ".join(f"{one[key] / scale:.{digits}f}" for one in runs)

    unseen = sum(one["unseen"] for one in runs)
    cold = f"{sum(one['unseen_hits'] for one in runs) / unseen:.3f} of {unseen // len(runs):,}" if unseen else "none asked"
    cells = (
        name,
        str(len(runs)),
        spread("hr"),
        spread("ndcg"),
        spread("ndcg_retrieval"),
        spread("ndcg_network"),
        spread("ndcg_scorers"),
        cold,
    )
    shares = ", ".join(f"{1 - sum(one['weights'].values()):.2f}" for one in runs)
    return (*cells, shares, many("epochs"), many("cpu_seconds", 1, 60))


def markdown(rows: list[tuple[str, ...]], given: argparse.Namespace, arguments: list[str]) -> str:
    """The table as a page, with date, machine and command."""
    lines = [f"| {' | '.join(cells)} |" for cells in (HEADER, ("---",) * len(HEADER), *rows)]
    when = f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, seeds {', '.join(map(str, given.seeds))}"
    title = f"# Quality: {given.preset or given.config.stem}, {given.protocol}"
    said = f"{when}. Command: `python -m benchmarks.quality {shlex.join(arguments)}`."
    return "\n".join(
        [title, "", "Mean over seeds ± standard deviation; lists of single runs are in the order of the seeds.", "", *lines, "", said, ""]
    )


def config_of(given: argparse.Namespace, variant: str, seed: int) -> RunConfig:
    """The config of one run."""
    overrides = [f"evaluation.protocols=[{given.protocol}]", f"training.seed={seed}", f"training.workers={given.workers}"]
    if given.minutes:
        overrides.append(f"training.max_minutes={given.minutes}")
    overrides += [*given.overrides, *VARIANTS[variant]]
    return load_preset(given.preset, overrides) if given.preset else load_config(given.config, overrides)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description="Ranking quality over seeds, and ablations.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--preset")
    source.add_argument("--config", type=Path)
    parser.add_argument("--protocol", choices=("leave_one_out", "streaming", "temporal"), default="leave_one_out")
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=["full"])
    parser.add_argument("--minutes", type=float, help="most minutes of training a run")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--table", type=Path, help="also write the table to this Markdown file")
    parser.add_argument("--plot", type=Path, help="also draw quality by time to this PNG file")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
