"""Text vectors kept from night to night, so that only new texts are encoded.

Append-only shards in one folder for each model. A shard's name is the digest of its bytes: one that was
damaged is noticed, put aside and encoded again, and two processes can write at the same time.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Encode = Callable[[list[str]], NDArray[np.float32]]


class TextCache:
    """Vectors by text.

    Args:
        folder: one folder for each model, pooling and text length.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def vectors(self, texts: Sequence[str], encode: Encode) -> tuple[NDArray[np.float32], int]:
        """Vectors of texts, encoding those not kept yet.

        Args:
            texts: the texts; may repeat.
            encode: gives float32 [n, d] for a list of n new texts.

        Returns:
            float32 [len(texts), d] in order, and how many texts were encoded now.
        """
        keys = [sha256(text.encode()).digest() for text in texts]
        kept = self._read()
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in kept}
        if new:
            made = encode(list(new.values()))
            self._write(list(new), made)
            kept |= dict(zip(new, made, strict=True))
        return np.stack([kept[key] for key in keys]).astype(np.float32), len(new)

    def _read(self) -> dict[bytes, NDArray[np.float32]]:
        kept: dict[bytes, NDArray[np.float32]] = {}
        for path in sorted(self.folder.glob("*.npz")):
            content = path.read_bytes()
            if sha256(content).hexdigest()[:32] != path.stem:
                path.rename(path.with_suffix(".damaged"))
                continue
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                kept |= {key.tobytes(): vector for key, vector in zip(arrays["keys"], arrays["vectors"], strict=True)}
        return kept

    def _write(self, keys: list[bytes], vectors: NDArray[np.float32]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.savez(buffer, keys=np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), -1), vectors=vectors.astype(np.float32))
        content = buffer.getvalue()
        temporary = self.folder / f".{os.getpid()}.tmp"
        temporary.write_bytes(content)
        temporary.replace(self.folder / f"{sha256(content).hexdigest()[:32]}.npz")
