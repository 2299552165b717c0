"""What every peer's runner shares: the task it is given, its clock, and how it tells what it found. Needs numpy and pandas alone.

    ENV/bin/python benchmarks/peers/rectools_sasrec.py TASK.json

The runner prints one JSON line an epoch, with the seconds of training alone. When the task asks for lists, it has then written the
lists of the validation users and reads one word from its standard input: `on` (next epoch), `test` (write the test users' lists
too, then on), `last` (write them, then stop) or `stop`. Whoever asks does the scoring, so that all peers are judged by the same code.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

TOP = 20

Lists = Callable[[str], np.ndarray]
"""Part ("validation" or "test") -> int [users asked, TOP], dense item ids, best first, seen items left out, -1 where there is none."""


@dataclass
class Task:
    """What TASK.json says.

    Attributes:
        data: folder with `train.parquet`, `validation.parquet` (user, item, order) and `asked_<part>.parquet` (user).
        out: folder for the lists.
        dim, blocks, heads, length: shape of the model; length is the most events of a history that it reads.
        epochs: most epochs.
        items: size of the catalogue.
        lists: whether lists are asked for after each epoch.
        options: what the peer's own arm says (loss, batch ...).
    """

    data: Path
    out: Path
    dim: int
    blocks: int
    heads: int
    length: int
    epochs: int
    items: int
    seed: int
    lists: bool
    options: dict

    @classmethod
    def read(cls) -> Task:
        """The task named on the command line; from here on printing is kept for the protocol."""
        content = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
        content["data"], content["out"] = Path(content["data"]), Path(content["out"])
        # Libraries print too: their words go to stderr, and the real stdout is ours.
        cls.voice = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        return cls(**content)

    def events(self, part: str) -> pd.DataFrame:
        """What is known when a part is asked: training events, for the test those of validation too; in order."""
        frames = [pd.read_parquet(self.data / "train.parquet")]
        if part == "test":
            frames.append(pd.read_parquet(self.data / "validation.parquet"))
        return pd.concat(frames).sort_values(["user", "order"], kind="stable", ignore_index=True)

    def asked(self, part: str) -> np.ndarray:
        """Users of a part, int64, ascending."""
        return pd.read_parquet(self.data / f"asked_{part}.parquet")["user"].to_numpy()

    def histories(self, part: str) -> list[np.ndarray]:
        """Items of each asked user, oldest first."""
        frame = self.events(part)
        items, users = frame["item"].to_numpy(), frame["user"].to_numpy()
        first, last = np.searchsorted(users, self.asked(part), "left"), np.searchsorted(users, self.asked(part), "right")
        return [items[one:other] for one, other in zip(first, last)]  # noqa: B905  # of one length by construction


class Clock:
    """Wall and CPU seconds of the epochs, lists and waiting left out."""

    def __init__(self) -> None:
        self.epoch = 0

    def start(self) -> None:
        """Training of an epoch begins."""
        self.began, self.cpu = time.perf_counter(), time.process_time()

    def stop(self) -> dict:
        """Training of an epoch has ended; what is to be told of it."""
        wall, cpu = time.perf_counter() - self.began, time.process_time() - self.cpu
        self.epoch += 1
        return {"epoch": self.epoch, "seconds": round(wall, 4), "cpu_seconds": round(cpu, 4)}


def tell(task: Task, line: dict, lists: Lists) -> bool:
    """Report an epoch and do as is answered; returns whether to go on."""
    answer = "on"
    if task.lists:
        np.save(task.out / "validation.npy", lists("validation").astype(np.int32))
    print(json.dumps(line), file=task.voice, flush=True)
    if task.lists:
        answer = sys.stdin.readline().strip() or "stop"
        if answer in ("test", "last"):
            np.save(task.out / "test.npy", lists("test").astype(np.int32))
    return answer in ("on", "test") and line["epoch"] < task.epochs


def best(scores: np.ndarray, histories: list[np.ndarray]) -> np.ndarray:
    """The TOP best items of each row, what the history has left out.

    Args:
        scores: float [n, items]; changed in place.
        histories: dense items of each row.
    """
    for row, history in enumerate(histories):
        scores[row, history] = -np.inf
    k = min(TOP, scores.shape[1])
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.where(np.isneginf(np.take_along_axis(scores, order, 1)), -1, order)
