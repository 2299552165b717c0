"""What each of some pretrained language models gives on one data set, and what it costs.

    python -m benchmarks.pretrained --preset office sentence-transformers/all-MiniLM-L6-v2 path/to/another/model [--table FILE]

Each model encodes the catalogue afresh on one thread; then the recommender is trained on its vectors, chooses its epoch and fusion on
validation, and is asked once about the test. Its neighbours by text alone say what the vectors are worth before any training.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from benchmarks.quality import mean, measure
from nightloom.config import RunConfig, load_preset
from nightloom.core.errors import NightloomError
from nightloom.core.ranking import ranks
from nightloom.core.sequences import Sequences
from nightloom.core.streaming import queries_of
from nightloom.data.collect import collect
from nightloom.data.preparation.prepare import prepare
from nightloom.data.tables.snapshot import read_snapshot
from nightloom.encoders.load_pretrained import load_pretrained
from nightloom.encoders.text import TextEncoder
from nightloom.encoders.weights import resolve
from nightloom.models.scorers.text_neighbours import TextNeighbours

HEADER = (
    "model",
    "parameters",
    "width",
    "pooling",
    "encoding, CPU s a 1,000 texts",
    "neighbours by text",
    "network",
    "fused",
    "unseen items in ten",
)


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the process's exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pretrained", description="Pretrained language models side by side.")
    parser.add_argument("models", nargs="+", help="hub names or local folders")
    parser.add_argument("--preset", default="office")
    parser.add_argument("--protocol", choices=("leave_one_out", "streaming", "temporal"), default="leave_one_out")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--table", type=Path, help="also write the table to this Markdown file")
    given = parser.parse_args(arguments)
    console, root = Console(), Path(os.environ.get("NIGHTLOOM_ROOT", "mlruns"))
    torch.set_num_threads(1)
    rows = []
    try:
        for model in given.models:
            overrides = [f"evaluation.protocols=[{given.protocol}]", "training.workers=1", f"pretrained.model={model}", *given.overrides]
            config = load_preset(given.preset, overrides)
            rows.append(row(config, given.protocol, root))
            console.print(dict(zip(HEADER, rows[-1], strict=True)))
    except NightloomError as error:
        console.print(str(error), style="red", markup=False)
        return error.exit_code
    lines = [f"| {' | '.join(cells)} |" for cells in (HEADER, ("---",) * len(HEADER), *rows)]
    command = shlex.join(sys.argv[1:] if arguments is None else arguments)
    said = f"{datetime.now(UTC):%Y-%m-%d}, one thread, seed {config.training.seed}. Command: `python -m benchmarks.pretrained {command}`."
    page = "\n".join([f"# Pretrained language models: {given.preset}, {given.protocol}, NDCG@10 on the test", "", *lines, "", said, ""])
    console.print(page, markup=False, highlight=False, soft_wrap=True)
    if given.table:
        given.table.write_text(page, encoding="utf-8")
    return 0


def row(config: RunConfig, protocol: str, root: Path) -> tuple[str, ...]:
    """One model's cells."""
    weights = resolve(config.pretrained.model)
    encoder = TextEncoder.from_weights(weights, pooling=config.pretrained.pooling)
    home = root / "bench" / "pretrained" / config.name
    prepared, pretrained = home / "prepared", home / weights.fingerprint[:12]
    for place in (prepared, pretrained):
        place.mkdir(parents=True, exist_ok=True)
    prepare(
        read_snapshot(collect(config.name, config.data, root).path),
        prepared,
        prepare=config.prepare,
        evaluation=config.evaluation,
        tags_separator=config.data.tags_separator,
    )
    with tempfile.TemporaryDirectory() as fresh:  # a cache of its own, so that everything is encoded now
        began = time.process_time()
        figures = load_pretrained(config.pretrained, prepared, Path(fresh), pretrained)
        spent = time.process_time() - began
    sequences = Sequences.load(prepared / f"sequences_{protocol}.npz")
    queries = queries_of(protocol, sequences, "test", exclude_seen=config.evaluation.exclude_seen)
    vectors, mask = (torch.from_numpy(np.load(pretrained / f"text_{name}.npy", allow_pickle=False)) for name in ("vectors", "mask"))
    near = TextNeighbours().read(vectors, mask)
    found = measure(config, protocol, prepared, pretrained, home / f"{weights.fingerprint[:12]}-{config.digest()[:12]}")
    return (
        Path(config.pretrained.model).name,
        f"{sum(one.numel() for one in encoder.parameters()) / 1e6:.0f} M",
        str(encoder.dim),
        encoder.pooling,
        f"{1000 * spent / max(figures['encoded'], 1):.1f}",
        f"{mean(ranks(near, queries, exclude_seen=config.evaluation.exclude_seen), 'ndcg_at_10'):.4f}",
        f"{found['ndcg_network']:.4f}",
        f"{found['ndcg']:.4f}",
        f"{found['unseen_hits']} of {found['unseen']}",
    )


if __name__ == "__main__":
    sys.exit(main())
