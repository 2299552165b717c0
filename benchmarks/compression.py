"""What serves, at each precision: text encoder, sequence model and item vectors; size, what is kept, and what it costs.

    python -m flows.nightly --preset movies-small
    python -m benchmarks.compression movies-small [--table FILE]

The champion's text encoder is exported anew at each precision and measured as promotion's gate measures it
(`nightloom.compress.text`): over texts of the catalogue, and the last positive events of the snapshot's users. Its sequence model and item
vectors are measured by theirs (`nightloom.compress.sequence`). CPU time is of one thread, a median over calls.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks import int8_speed
from benchmarks.service_process import champion_of
from benchmarks.serving_engine import table
from nightloom.compress.sequence import SequenceExport, SequenceGate
from nightloom.compress.text import LADDER, encoder_of, measured
from nightloom.encoders.export import export
from nightloom.encoders.exported import ExportedEncoder
from nightloom.packaging.bundle import Bundle
from nightloom.packaging.serving_precision import LADDER as LADDER_OF_SEQUENCE
from nightloom.promotion.registry import Registry

TIMED, BATCH = 200, 64
HEAD = ("weights", "MB", "of single", "neighbours kept", "cold NDCG lost", "CPU ms, one text", "CPU ms each, batch of 64")

SEQUENCE_HEAD = ("encoder", "item vectors", "size", "of single", "NDCG@10 of single", "lost", "ten best kept")


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the process's exit code."""
    given = parse(arguments)
    root = Path(os.environ.get("NIGHTLOOM_ROOT", "mlruns")).resolve()
    champion, registry = champion_of(root, given.name), Registry(root)
    version = registry.champion(given.name)
    if version is None:
        sys.exit(f"{given.name}: the champion is gone")
    bundle = Bundle.load(registry.fetch(version, root / "cache" / "champions"))
    found = encoder_of(bundle)
    if found is None:
        sys.exit(f"{given.name}: the model reads no text")
    told = bundle.recommender.content.has_text.tolist()
    texts = [str(text) for text, has in zip(bundle.catalogue["text"], told, strict=True) if has]
    rows = []
    with tempfile.TemporaryDirectory(prefix="nightloom-bench-") as scratch:
        for precision in LADDER:
            folder = Path(scratch) / f"encoder-{precision}"
            export(found[1](), folder, precision)
            encoder = ExportedEncoder(folder)
            said = measured(encoder, folder, bundle, champion.snapshot)
            lost = "not measured" if said.cold_ndcg_loss is None else f"{said.cold_ndcg_loss:.2%}"
            rows.append([precision, said.bytes, f"{said.neighbours_kept:.2%}", lost, cost(encoder, texts, 1), cost(encoder, texts, BATCH)])
    single = rows[-1][1]
    lines = [
        (name, f"{size / 1e6:.1f}", f"{size / single:.0%}", *kept, f"{one:.2f}", f"{many:.2f}") for name, size, *kept, one, many in rows
    ]
    gate = SequenceGate(bundle, champion.snapshot)
    shape = f"d {bundle.recommender.config.dim} x {bundle.recommender.config.blocks}, {len(bundle.item_ids):,} items"
    text = "\n".join(
        [
            f"Text encoder of {given.name}:",
            "",
            *table(HEAD, lines),
            "",
            f"Sequence model and item vectors of {given.name}, {shape}, over {len(gate.queries):,} later events:",
            "",
            *table(SEQUENCE_HEAD, [sequence_row(gate.measured(precisions)) for precisions in LADDER_OF_SEQUENCE]),
            "",
            "Sequence model and scan of all items, in float32 and in int8, weights made up:",
            "",
            *table(int8_speed.HEAD, int8_speed.rows()),
            "",
            f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({platform.machine()}), load average {os.getloadavg()[0]:.1f}. Command:",
            "",
            f"    python -m benchmarks.compression {shlex.join(sys.argv[1:] if arguments is None else arguments)}",
            "",
        ]
    )
    print(text)
    if given.table:
        given.table.write_text(text, encoding="utf-8")
    return 0


def sequence_row(found: SequenceExport) -> tuple[str, ...]:
    """A row of the table of the sequence model."""
    share, lost, kept = f"{found.bytes / found.single_bytes:.1%}", f"{found.ndcg_lost:.2%}", f"{found.lists_kept:.2%}"
    return found.encoder, found.vectors, f"{found.bytes / 1e3:.0f} kB", share, f"{found.ndcg_at_10:.4f}", lost, kept


def cost(encoder: ExportedEncoder, texts: Sequence[str], together: int) -> float:
    """CPU milliseconds a text, the median over calls with so many texts."""
    some = np.random.default_rng(0).permutation(len(texts))[: TIMED * together]
    calls = [[texts[place] for place in some[first : first + together]] for first in range(0, len(some), together)]
    encoder.encode(calls[0])
    times = []
    for call in calls:
        began = time.process_time()
        encoder.encode(call)
        times.append((time.process_time() - began) / len(call))
    return float(np.median(times)) * 1000


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compression", description="What serves, compressed.")
    parser.add_argument("name", help="of a recommender that has a champion in mlruns (NIGHTLOOM_ROOT)")
    parser.add_argument("--table", type=Path, help="also write the table to this Markdown file")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
