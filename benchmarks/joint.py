"""The label head trained jointly with retrieval: its probabilities against baselines on the same counters, and what it does to the ranking.

    python -m benchmarks.joint --preset movies-small --set prepare.positive_min_value=4 --weights 0 0.0001 1 --seeds 7 8 9 [--table FILE]

Each run trains on the events before validation; epoch, calibration and the weights that are compared are chosen on validation, and the
test is asked once. Weight 0 is retrieval alone, and `frozen` the same head fitted afterwards on the network of weight 0; at .0001 the head
learns at its full rate (the optimizer divides by the size of gradients) while retrieval hardly feels it. Under leave-one-out, whose parts
are cut by the labels, only the ranking is measured. Runs are kept under `<mlruns>/bench/joint/`.
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
from scipy.special import expit

from benchmarks.joint_baselines import FLOORS, ask_baseline
from benchmarks.joint_frozen import ask_frozen
from nightloom.config import RunConfig, load_config, load_preset
from nightloom.core.click_metrics import NAMES, intervals, measure
from nightloom.core.errors import NightloomError
from nightloom.core.ranking import blocks, ndcg_of_scores
from nightloom.core.sequences import Queries, Sequences
from nightloom.data.collect import collect
from nightloom.data.preparation.label_questions import LabelQuestions
from nightloom.data.preparation.prepare import prepare
from nightloom.data.tables.snapshot import read_snapshot
from nightloom.encoders.load_pretrained import load_pretrained
from nightloom.models.heads.label_counters import LabelCounters
from nightloom.models.heads.reranker import candidates_of
from nightloom.models.scorers.score_fusion import standard
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.packaging.bundle import Bundle
from nightloom.training.fine_tune import fine_tune

FROZEN = "frozen"
"""The head fitted afterwards on the network of weight 0."""
SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
"""Weights of the head's log-odds beside the standardised scores of retrieval, of which validation chooses one."""
CHANCES, RANKING = tuple(NAMES), ("ndcg_network", "ndcg", "ndcg_then_head")


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the process's exit code."""
    given = parse(arguments)
    console, root = Console(highlight=False, soft_wrap=True), Path(os.environ.get("NIGHTLOOM_ROOT", "mlruns"))
    try:
        config = config_of(given, 0.0, given.seeds[0])
        home = root / "bench" / "joint" / f"{config.name}-{given.protocol}"
        prepared, pretrained = home / "prepared", home / "pretrained"
        for place in (prepared, pretrained):
            place.mkdir(parents=True, exist_ok=True)
        prepare(
            read_snapshot(collect(config.name, config.data, root).path),
            prepared,
            prepare=config.prepare,
            evaluation=config.evaluation,
            tags_separator=config.data.tags_separator,
        )
        load_pretrained(config.pretrained, prepared, root, pretrained)
        sequences = Sequences.load(prepared / f"sequences_{given.protocol}.npz")
        found: dict[str, list[dict[str, Any]]] = {}
        for seed in given.seeds:
            for weight in given.weights:
                folder = home / f"{weight:g}-{seed}-{config_of(given, weight, seed).digest()[:12]}"
                run = trained(config_of(given, weight, seed), given.protocol, prepared, pretrained, sequences, folder)
                found.setdefault(f"label_weight {weight:g}", []).append(run)
                console.print(f"label_weight {weight:g}, seed {seed}: {run}")
            for name in (*([FROZEN] if 0 in given.weights else []), *FLOORS) if given.protocol == "temporal" else ():
                folder = home / f"{name}-{seed}"
                if not (folder / "result.json").exists():
                    retrieval = home / f"0-{seed}-{config_of(given, 0.0, seed).digest()[:12]}"
                    keep(folder, ask_frozen(retrieval, sequences, folder) if name == FROZEN else ask_baseline(name, sequences, seed))
                found.setdefault(name, []).append(json.loads((folder / "result.json").read_text(encoding="utf-8")))
                console.print(f"{name}, seed {seed}: {found[name][-1]}")
        lines = [*table(found), "", *apart(found, given, home)]
    except NightloomError as error:
        console.print(str(error), style="red", markup=False)
        return error.exit_code
    console.print(*lines, sep="\n")
    if given.table:
        said = f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, one thread. Mean over seeds {', '.join(map(str, given.seeds))} ± "
        said += f"standard deviation. Command: `python -m benchmarks.joint {shlex.join(sys.argv[1:] if arguments is None else arguments)}`."
        given.table.write_text("\n".join([f"## {config.name}, {given.protocol}", "", *lines, "", said, ""]), encoding="utf-8")
    return 0


def trained(config: RunConfig, protocol: str, prepared: Path, pretrained: Path, sequences: Sequences, folder: Path) -> dict[str, Any]:
    """Train one run (or take what is there) and ask it about validation and test."""
    if not (folder / "result.json").exists():
        figures = fine_tune(config, protocol, prepared, pretrained, folder)
        recommender, result = (
            Bundle.load(folder / "bundle").recommender,
            {"epochs": figures["best_epoch"], "cpu_seconds": figures["cpu_seconds"]},
        )
        probabilities = {}
        if recommender.labels is not None:
            asked = LabelQuestions.of(sequences, "validation")
            known = LabelCounters.of(sequences.train(), recommender.n_items)
            answers = recommender.label_log_odds(asked.histories, asked.owner, asked.items, known).astype(np.float64)
            test = LabelQuestions.of(sequences, "test")
            probability = recommender.probabilities(test.histories, test.owner, test.items)
            probabilities = {"positive": test.positive, "probability": probability}
            result |= {"validation": measure(asked.positive, expit(answers)), "test": measure(test.positive, probability)}
        keep(folder, (result | ranked(recommender, sequences, exclude_seen=config.evaluation.exclude_seen), probabilities))
    content: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return content


def keep(folder: Path, found: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Write figures and probabilities; the figures come last and say that all is there."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "probabilities.npz", **found[1])
    (folder / "result.json").write_text(json.dumps(found[0]) + "\n", encoding="utf-8")


def ranked(recommender: SequentialRecommender, sequences: Sequences, *, exclude_seen: bool) -> dict[str, Any]:
    """NDCG@10 of the test: the network alone, fused, and with the label head's log-odds added at the share that validation chose."""
    counters = LabelCounters.of(sequences.train(with_validation=True), recommender.n_items)  # it reads what is before each question alone
    gains = {
        part: gained(recommender, sequences.queries(part, exclude_seen=exclude_seen), counters, exclude_seen=exclude_seen)
        for part in ("validation", "test")
    }
    network, by_share = gains["test"]
    share = int(np.argmax([one.mean() for one in gains["validation"][1]]))
    found: dict[str, Any] = {"ndcg_network": float(network.mean()), "ndcg": float(by_share[0].mean())}
    if recommender.net.label_head is None:
        return found
    said = {part: by[share] - by[0] for part, (_, by) in gains.items()}
    errors = {f"gain_{part}": [float(one.mean()), float(one.std() / max(len(one), 1) ** 0.5)] for part, one in said.items()}
    return found | {"ndcg_then_head": float(by_share[share].mean()), "share": SHARES[share], **errors}


def gained(
    recommender: SequentialRecommender, queries: Queries, counters: LabelCounters, *, exclude_seen: bool
) -> tuple[np.ndarray, np.ndarray]:
    """NDCG@10 of each query: of the network alone, float64 [n], and of the 100 best fused with the head at each share, [shares, n]."""
    alone, label = [], []
    for part in blocks(queries, recommender.n_items * (len(recommender.weights) + 1)):
        many, network = np.diff(part.target_offsets), recommender.network_scores(part.histories)
        held = np.zeros(network.shape, dtype=bool)
        held[np.repeat(np.arange(len(part)), many), part.targets] = True
        scores = recommender.finish(network, recommender.scorer_scores(part.histories), part.histories)
        best = candidates_of(network, part.histories, exclude_seen=exclude_seen)
        alone.append(ndcg_of_scores(np.take_along_axis(network, best, 1), np.take_along_axis(held, best, 1), many))
        best = candidates_of(scores, part.histories, exclude_seen=exclude_seen)
        log_odds = np.zeros(best.shape, dtype=np.float32)
        if recommender.net.label_head is not None:
            owner = np.repeat(np.arange(len(part)), best.shape[1])
            log_odds = recommender.label_log_odds(part.histories, owner, best.ravel(), counters).reshape(best.shape)
        score, hit = np.take_along_axis(standard(scores), best, 1), np.take_along_axis(held, best, 1)
        label.append([ndcg_of_scores(score + share * log_odds, hit, many) for share in SHARES])
    return np.concatenate(alone), np.concatenate(label, axis=1)


def table(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """The figures of the test as Markdown: means over seeds, with the standard deviation where there are several."""

    def cell(values: list[float | None]) -> str:
        there = np.array([one for one in values if one is not None])
        if not len(there):
            return ""
        return f"{there.mean():.4f}" + (f" ± {there.std(ddof=1):.4f}" if len(there) > 1 else "")

    header = ("", *(f"test {name}" for name in CHANCES), "validation log_loss", *RANKING, "best epoch", "CPU s")
    rows = []
    for name, runs in found.items():
        cells = [cell([run.get("test", {}).get(metric) for run in runs]) for metric in CHANCES]
        cells += [
            cell([run.get("validation", {}).get("log_loss") for run in runs]),
            *(cell([run.get(one) for run in runs]) for one in RANKING),
        ]
        cells += [", ".join(str(run.get("epochs", "")) for run in runs), ", ".join(f"{run['cpu_seconds']:.0f}" for run in runs)]
        rows.append((name, *cells))
    return [f"| {' | '.join(cells)} |" for cells in (header, ("---",) * len(header), *rows)]


def apart(found: dict[str, list[dict[str, Any]]], given: argparse.Namespace, home: Path) -> list[str]:
    """In words: the weight of best validation log-loss, how its probabilities differ, and what the head does to the ranking."""
    heads = {name: runs for name, runs in found.items() if "validation" in runs[0] and name.startswith("label_weight")}
    lines = []
    for name, runs in found.items():
        if "share" in runs[0]:
            said = "; ".join("{} on validation {:+.4f} ± {:.4f}, on the test {:+.4f} ± {:.4f}".format(
                run["share"], *run["gain_validation"], *run["gain_test"]) for run in runs)  # fmt: skip
            lines.append(f"{name}, retrieval then head, share and gain in NDCG@10 of each seed: {said}.")
    if not heads:
        return lines
    best = min(heads, key=lambda name: float(np.mean([run["validation"]["log_loss"] for run in heads[name]])))
    lines.append(f"Best log-loss on validation: {best}. Less the others, test part, first seed (95 %, paired, rows drawn):")
    kept = {}
    for name in (*heads, *(one for one in (FROZEN, *FLOORS) if one in found)):
        place = name.removeprefix("label_weight ") + f"-{given.seeds[0]}"
        path = next(one for one in sorted(home.iterdir()) if one.name == place or one.name.startswith(place + "-"))
        with np.load(path / "probabilities.npz") as arrays:
            kept[name] = (arrays["positive"], arrays["probability"])
    for name, (positive, probability) in kept.items():
        if name != best:
            low_high = intervals(positive, kept[best][1], probability, resamples=200)
            lines.append(f"- {name}: " + "; ".join(f"{metric} {low:+.4f} to {high:+.4f}" for metric, (low, high) in low_high.items()))
    return lines


def config_of(given: argparse.Namespace, weight: float, seed: int) -> RunConfig:
    """The config of one run; without a refit, so that every model has learnt from the same events."""
    overrides = [f"evaluation.protocols=[{given.protocol}]", f"training.seed={seed}", "training.workers=1", "training.refit=false"]
    overrides += ["model.reranker=false", *given.overrides, f"training.label_weight={weight}"]
    return load_preset(given.preset, overrides) if given.preset else load_config(given.config, overrides)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.joint", description="The label head, jointly with retrieval, over seeds.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--preset")
    source.add_argument("--config", type=Path)
    parser.add_argument("--protocol", choices=("temporal", "leave_one_out"), default="temporal")
    parser.add_argument("--weights", type=float, nargs="+", default=[0, 0.0001, 1])
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--table", type=Path, help="also write the table to this Markdown file")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
