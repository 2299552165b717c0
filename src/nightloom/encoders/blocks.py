"""Texts that are encoded in a process of their own, which keeps the vectors in the cache: a block of them is whole there, or not at all.

A block holds the texts that one machine would encode together, so the vectors are the same to the last bit.

    python -m nightloom.encoders.blocks WORK.json
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from nightloom.core.errands import run_errand
from nightloom.core.errors import InputError
from nightloom.core.files import write_json
from nightloom.encoders.text import Pooling, TextEncoder
from nightloom.encoders.text_cache import SHARD, TextCache
from nightloom.encoders.text_fast import accelerate
from nightloom.encoders.vector_cache import Progress
from nightloom.encoders.weights import Weights, resolve

LEFT = "texts left: "
"""What a line of progress begins with."""


@dataclass(frozen=True)
class Encoding:
    """How texts become vectors.

    Attributes:
        model: hub name, or a folder's absolute path.
        fingerprint: of the model's files.
        pooling: how token vectors become one.
        max_tokens: longest text, in tokens.
        engine: torch or fast.
        cache: folder where the vectors are kept.
    """

    model: str
    fingerprint: str
    pooling: Pooling
    max_tokens: int
    engine: Literal["torch", "fast"]
    cache: str

    @classmethod
    def of(cls, weights: Weights, name: str, pooling: Pooling, max_tokens: int, engine: Literal["torch", "fast"], root: Path) -> Self:
        """That of a model that is found; `name` is what the config calls it, `root` the mlruns folder."""
        which = f"{weights.fingerprint[:16]}-{pooling}-{max_tokens}" + ("" if engine == "torch" else f"-{engine}")
        model = str(weights.path) if weights.source == "folder" else name
        return cls(model, weights.fingerprint, pooling, max_tokens, engine, str((root / "cache" / "text" / which).resolve()))

    def write(self, path: Path, texts: list[str]) -> None:
        """Write the argument of a process that encodes some texts."""
        write_json(path, asdict(self) | {"texts": texts})


Elsewhere = Callable[[Encoding, list[str], Progress], None]
"""Has other processes encode texts into the cache; progress is called with (texts done, all texts)."""


class Encoder:
    """Encodes texts; the model is loaded when the first come.

    Args:
        encoding: how.
        weights: the model's files.
    """

    def __init__(self, encoding: Encoding, weights: Weights) -> None:
        self._encoding, self._weights = encoding, weights
        self._loaded: TextEncoder | None = None

    def __call__(self, texts: list[str], tell: Progress) -> NDArray[np.float32]:
        """Vectors, float32 [n, d]; `tell` gets (done, n)."""
        if self._loaded is None:
            loaded = TextEncoder.from_weights(self._weights, pooling=self._encoding.pooling, max_tokens=self._encoding.max_tokens)
            self._loaded = accelerate(loaded) if self._encoding.engine == "fast" else loaded
        return self._loaded.encode(texts, tell)


def encode(given: dict[str, Any]) -> None:
    """Encode what `Encoding.write` wrote.

    Raises:
        InputError: the language model is missing here, or another one than the night's.
    """
    texts, encoding = given.pop("texts"), Encoding(**given)

    def tell(done: int, total: int) -> None:
        if done % SHARD == 0 or done == total:
            print(f"{LEFT}{total - done}", flush=True)  # noqa: T201

    weights = resolve(encoding.model)
    if weights.fingerprint != encoding.fingerprint:
        raise InputError(
            f"pretrained.model: '{encoding.model}' on {platform.node()} ({weights.path}) is not the model of the night, which has the "
            f"fingerprint {encoding.fingerprint[:16]}. Put the same files there."
        )
    TextCache(Path(encoding.cache)).vectors(texts, Encoder(encoding, weights), tell)


if __name__ == "__main__":
    sys.exit(run_errand(Path(sys.argv[1]), encode))
