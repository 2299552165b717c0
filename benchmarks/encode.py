"""What a thousand texts cost to encode: plain torch, torch by length, `pretrained.engine: fast`, and ONNX Runtime in int8.

    python -m benchmarks.encode [--preset movies-small office] [--rounds 3] [--threads 1] [--table benchmarks/encode.md]

The texts are those that stage load_pretrained would encode: of a preset's prepared items, each once, in catalogue order. Arms take
turns, so that a busy machine is busy for all, and the CPU seconds of all threads count, from text to vector, tokenizing included.
Making an arm ready (tracing, quantizing, compiling) happens once for any number of texts and is shown apart.
"""

from __future__ import annotations

import argparse
import copy
import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from nightloom.config import PretrainedConfig, RunConfig, load_preset
from nightloom.core.errors import InputError, NightloomError
from nightloom.data.collect import collect
from nightloom.data.preparation.prepare import prepare
from nightloom.data.tables.snapshot import read_snapshot
from nightloom.encoders.text import TextEncoder
from nightloom.encoders.text_fast import accelerate

BATCH = 32
"""Texts in a batch of plain torch, as sentence-transformers has it."""

NEIGHBOURS = 10
HEAD = ["encoder", "CPU s per 1,000 texts", "plain torch / this", "made ready, CPU s", "cosine with plain", "same 10 neighbours"]

Encode = Callable[[Sequence[str]], NDArray[np.float32]]


@dataclass
class Arm:
    """A way to encode, and what was measured of it.

    Attributes:
        name: as in the table.
        encode: texts to vectors.
        ready: CPU seconds that making it took, loading the weights not counted.
        seconds: CPU seconds of each round.
        vectors: float32 [texts, dim] of the last round.
    """

    name: str
    encode: Encode
    ready: float
    seconds: list[float] = field(default_factory=list)
    vectors: NDArray[np.float32] | None = None


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the process's exit code."""
    given = parse(arguments)
    console = Console()
    torch.set_num_threads(given.threads)
    parts = []
    try:
        for preset in given.preset:
            config = load_preset(preset, given.set)
            texts = made_up() if given.quick else texts_of(config)
            name = "made-up titles" if given.quick else config.name
            arms = arms_of(config.pretrained, console)
            measure(arms, texts, given.rounds, console)
            title = f"{name}: {len(texts):,} texts"
            rows = rows_of(arms, len(texts))
            console.print(rich(title, rows))
            parts.append(markdown(title, rows))
    except InputError as error:
        console.print(str(error), style="red", markup=False)
        return error.exit_code
    if given.table:
        command = " ".join(sys.argv[1:] if arguments is None else arguments)
        page = ["# Encoding texts", NOTES, *parts, conditions(given, command)]
        given.table.write_text("\n\n".join(page) + "\n", encoding="utf-8")
    return 0


def texts_of(config: RunConfig) -> list[str]:
    """A config's item texts as prepared, each once, in catalogue order."""
    root = Path(os.environ.get("NIGHTLOOM_ROOT", "mlruns"))
    with tempfile.TemporaryDirectory() as folder:
        prepare(
            read_snapshot(collect(config.name, config.data, root).path),
            Path(folder),
            prepare=config.prepare,
            evaluation=config.evaluation,
            tags_separator=config.data.tags_separator,
        )
        column = pd.read_parquet(Path(folder) / "items.parquet", columns=["text"])["text"]
    texts = list(dict.fromkeys(text for text in column.tolist() if isinstance(text, str) and text.strip()))
    if len(texts) <= 1:
        raise InputError(f"{config.name}: the items have no texts to encode. Name a preset whose items have text.")
    return texts


def made_up() -> list[str]:
    """Some short titles of unlike lengths, for --quick."""
    words = ["red", "dark", "star", "space", "city", "lost", "king", "ring", "dog", "cat", "jazz", "heat"]
    random = np.random.default_rng(5)
    return list(dict.fromkeys(" ".join(random.choice(words, int(random.integers(1, 12)))) for _ in range(80)))


def arms_of(config: PretrainedConfig, console: Console) -> list[Arm]:
    """All encoders that this installation has, plain torch first; why one is missing is printed."""
    encoder = TextEncoder.load(config.model, pooling=config.pooling, max_tokens=config.max_tokens, sha256=config.sha256)
    arms = [Arm(f"torch fp32, catalogue order, batches of {BATCH}", plain(encoder), 0.0), Arm("torch fp32, by length", encoder.encode, 0.0)]
    ways: list[tuple[str, Callable[[TextEncoder], TextEncoder]]] = [
        ("pretrained.engine: fast (OpenVINO)", accelerate),
        ("ONNX Runtime int8, by length", quantize),
    ]
    for name, way in ways:
        try:
            spare, start = copy.deepcopy(encoder), time.process_time()
            made = way(spare)
            arms.append(Arm(name, made.encode, time.process_time() - start))
        except (InputError, ImportError) as error:
            console.print(f"{name} is left out: {error}", style="yellow", markup=False)
    return arms


def plain(encoder: TextEncoder) -> Encode:
    """Batch after batch as the texts come, padded to the longest of the batch."""

    @torch.no_grad()
    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        found = [encoder(encoder.tokenize(texts[start : start + BATCH])).numpy() for start in range(0, len(texts), BATCH)]
        return np.concatenate(found)

    return encode


def quantize(encoder: TextEncoder) -> TextEncoder:
    """Let ONNX Runtime run an encoder's model with int8 weights and activations that are quantized batch by batch.

    Raises:
        ImportError: onnxruntime, or what torch exports ONNX with, is not installed.
    """
    encoder.model = Int8(encoder.model.eval())
    return encoder


class Int8(nn.Module):
    """A BERT-class model, quantized dynamically by ONNX Runtime, that answers as the original does."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        import onnxruntime
        import onnxscript  # noqa: F401  torch's exporter needs it, and says so less clearly
        from onnxruntime.quantization import quantize_dynamic
        from onnxruntime.quantization.shape_inference import quant_pre_process

        self.place = nn.Parameter(torch.empty(0), requires_grad=False)  # tells which device the encoder is on
        example = torch.ones(3, 9, dtype=torch.int64)
        sizes = {0: torch.export.Dim("texts", min=1, max=4096), 1: torch.export.Dim("tokens", min=1, max=512)}
        level = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                whole, shaped, small = (str(Path(folder) / f"{name}.onnx") for name in ("whole", "shaped", "small"))
                torch.onnx.export(
                    _Hidden(model).eval(),
                    (example, example.clone()),
                    whole,
                    dynamo=True,
                    dynamic_shapes={"ids": sizes, "mask": sizes},
                    input_names=["ids", "mask"],
                    output_names=["hidden"],
                    external_data=False,
                    verbose=False,
                )
                quant_pre_process(whole, shaped, skip_symbolic_shape=True)
                # Without VNNI the sums of 8-bit products overflow 16 bits, unless weights keep to 7.
                quantize_dynamic(shaped, small, per_channel=True, reduce_range="vnni" not in cpu("flags"))
                options = onnxruntime.SessionOptions()
                options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
                self.session = onnxruntime.InferenceSession(small, options, providers=["CPUExecutionProvider"])
        finally:
            logging.disable(level)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        """Token vectors, float32 [n, tokens, dim], as `last_hidden_state`."""
        found = self.session.run(None, {"ids": input_ids.numpy(), "mask": attention_mask.numpy()})[0]
        return SimpleNamespace(last_hidden_state=torch.from_numpy(found))


class _Hidden(nn.Module):
    """The model as a function of two tensors to one."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        hidden: Tensor = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        return hidden


def measure(arms: list[Arm], texts: list[str], rounds: int, console: Console) -> None:
    """Time the arms in turn, each first warmed up on a few texts."""
    for arm in arms:
        arm.encode(texts[: 2 * BATCH])
    for number in range(1, rounds + 1):
        for arm in arms:
            start = time.process_time()
            arm.vectors = arm.encode(texts)
            arm.seconds.append(time.process_time() - start)
            console.print(f"round {number}, {arm.name}: {arm.seconds[-1]:.2f} CPU s", style="dim", markup=False)


def rows_of(arms: list[Arm], count: int) -> list[list[str]]:
    """The table's rows: medians over the rounds, ratios to the first arm, and how close the vectors are to its."""
    reference, rows = arms[0], []
    for arm in arms:
        if reference.vectors is None or arm.vectors is None:
            raise NightloomError(f"{arm.name} has encoded nothing yet")
        seconds = median(arm.seconds)
        ratio = median(reference.seconds) / max(seconds, 1e-9)
        close, same = agreement(reference.vectors, arm.vectors)
        row = [f"{1000 * seconds / count:.2f}", f"{ratio:.2f}x", f"{arm.ready:.1f}" if arm.ready else "-"]
        rows.append([arm.name, *row, f"{close:.4f}", f"{same:.1%}"])
    return rows


def agreement(reference: NDArray[np.float32], other: NDArray[np.float32]) -> tuple[float, float]:
    """How much alike two sets of vectors of the same texts are.

    Args:
        reference: [n, dim], n at least 2.
        other: [n, dim].

    Returns:
        The mean cosine of a text's two vectors, and the mean share of its 10 nearest texts (by cosine) that are the same.
    """
    one, two = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (reference, other))
    near, near_too = nearest(one), nearest(two)
    same = [len(np.intersect1d(a, b)) / len(a) for a, b in zip(near, near_too, strict=True)]
    return float((one * two).sum(axis=1).mean()), float(np.mean(same))


def nearest(vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    """The rows nearest to each row of unit vectors, itself left out: int64 [n, min(10, n - 1)]."""
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    return np.argsort(-scores, axis=1, kind="stable")[:, : min(NEIGHBOURS, len(vectors) - 1)]


NOTES = """\
Texts are the prepared items' texts of a preset, each once. CPU seconds are of all threads, from text to vector, tokenizing included;
medians over rounds in which the encoders took turns. "Plain torch" is what a simple loop does: float32, texts as they come, padded to
the longest of their batch. The other rows sort texts by length as Nightloom always does. Cosine and neighbours compare the vectors with
plain torch's. "Made ready" (tracing, quantizing, compiling) is once for any number of texts."""


def rich(title: str, rows: list[list[str]]) -> Table:
    """For a terminal."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    for number, name in enumerate(HEAD):
        table.add_column(name, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    return table


def markdown(title: str, rows: list[list[str]]) -> str:
    """For a page."""
    lines = ["|" + "|".join(f" {cell} " for cell in row) + "|" for row in (HEAD, *rows)]
    lines.insert(1, "|---" * len(HEAD) + "|")
    return f"## {title}\n\n" + "\n".join(lines)


def cpu(entry: str) -> str:
    """What /proc/cpuinfo says of the first core, empty where it says nothing."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() == entry), "")


def conditions(given: argparse.Namespace, command: str) -> str:
    """When, where and how."""
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    packages = []
    for name in ("torch", "transformers", "openvino", "onnxruntime"):
        try:
            packages.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            packages.append(f"no {name}")
    bf16 = "with" if "bf16" in cpu("flags") else "without"
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({cpu('model name')}, {bf16} bfloat16 arithmetic), {given.threads} used, "
        f"{given.rounds} rounds, load average {os.getloadavg()[0]:.1f} at the end, Python {platform.python_version()}, "
        f"{', '.join(packages)}, at {git}.\nCommand: `python -m benchmarks.encode {command}`."
    )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.encode", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", nargs="+", default=["movies-small"])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--quick", action="store_true", help="made-up titles and one round")
    parser.add_argument("--rounds", type=int, help="turns of each encoder (default 3)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", type=Path, help="Markdown file for the tables")
    given = parser.parse_args(arguments)
    given.rounds = given.rounds or (1 if given.quick else 3)
    return given


if __name__ == "__main__":
    raise SystemExit(main())
