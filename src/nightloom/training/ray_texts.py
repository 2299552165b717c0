"""The catalogue's new texts, encoded as jobs on the nodes of a Ray cluster: the vectors are those of one machine, to the last bit.

Each job encodes whole blocks and keeps each in the cache of text vectors, which all nodes see. So what is done stays done, whatever
is lost.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from nightloom.core.errors import InputError, TrainingError
from nightloom.encoders.blocks import LEFT, Elsewhere, Encoding
from nightloom.encoders.text_cache import SHARD
from nightloom.encoders.vector_cache import Progress
from nightloom.training.launch import LOG_TAIL
from nightloom.training.ray_errands import Errand, run_errands

MODULE = "nightloom.encoders.blocks"
MOST_BLOCKS = 16
"""Blocks of a job at most: a lost one is encoded again from its last whole block, by another node."""


def encode_on_ray(folder: Path, at_once: int) -> Elsewhere:
    """What encodes texts on the cluster that RAY_ADDRESS names.

    Args:
        folder: for what the jobs read and print, deleted once all texts are encoded; all nodes see it under this path.
        at_once: jobs at once.

    Returns:
        A function of how to encode, the texts, and progress. It raises InputError where a job refuses its model, or no cluster is named,
        and TrainingError where a job fails or the cluster is lost.
    """

    def encode(encoding: Encoding, texts: list[str], progress: Progress) -> None:
        blocks = -(-len(texts) // SHARD)
        step = SHARD * min(MOST_BLOCKS, -(-blocks // at_once))
        parts = [texts[start : start + step] for start in range(0, len(texts), step)]
        left = [len(part) for part in parts]
        folder.mkdir(parents=True, exist_ok=True)

        def heard(at: int, line: str) -> None:
            if line.startswith(LEFT):
                left[at] = int(line.removeprefix(LEFT))
                progress(len(texts) - sum(left), len(texts))

        errands = []
        for at, part in enumerate(parts):
            encoding.write(folder / f"{at}.json", part)
            errands.append(Errand(folder / f"{at}.json", folder / f"{at}.txt", lambda line, at=at: heard(at, line)))  # type: ignore[misc]
        code, log = run_errands(MODULE, errands, at_once)
        if code:
            tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL:])
            if code == InputError.exit_code:
                raise InputError(tail)
            raise TrainingError(f"texts could not be encoded on Ray (exit code {code}). The end of {log}:\n{tail}")
        shutil.rmtree(folder)

    return encode
