"""Text vectors kept from night to night, so that only new texts are encoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nightloom.encoders.vector_cache import Progress, VectorCache

Encode = Callable[[list[str], Progress], NDArray[np.float32]]

SHARD = 4096
"""Most texts in a shard, and the most that a killed run loses."""


class TextCache(VectorCache):
    """Vectors by text.

    Args:
        folder: one folder for each model, pooling and text length.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, SHARD)

    def vectors(
        self,
        texts: Sequence[str],
        encode: Encode,
        progress: Progress | None = None,
        elsewhere: Callable[[list[str]], None] | None = None,
    ) -> tuple[NDArray[np.float32], int]:
        """Vectors of texts, encoding those not kept yet, each once.

        Args:
            texts: the texts; may repeat.
            encode: gives float32 [n, d] for n texts, and reports (done, n). Not called when all are kept.
            progress: called with (new texts done, all new texts).
            elsewhere: see `VectorCache.by_key`.

        Returns:
            float32 [len(texts), d] in order, and how many texts were encoded now.
        """
        keys = [sha256(text.encode()).digest() for text in texts]
        text_of = dict(zip(keys, texts, strict=True))
        spread = (lambda new: elsewhere([text_of[key] for key in new])) if elsewhere else None
        return self.by_key(keys, lambda new, tell: encode([text_of[key] for key in new], tell), progress, spread)
