"""Text vectors kept from night to night, so that only new texts are encoded.

Append-only shards in one folder for each model. A shard is named by the digest of its bytes: one that was damaged is
noticed, put aside and its texts encoded again, and two processes can write at the same time.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Progress = Callable[[int, int], None]
Encode = Callable[[list[str], Progress], NDArray[np.float32]]

SHARD = 4096
"""Texts in a shard at most: what a killed run loses."""


class TextCache:
    """Vectors by text.

    Args:
        folder: one folder for each model, pooling and text length.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def vectors(self, texts: Sequence[str], encode: Encode, progress: Progress | None = None) -> tuple[NDArray[np.float32], int]:
        """Vectors of texts, encoding those not kept yet, each once.

        Args:
            texts: the texts; may repeat.
            encode: gives float32 [n, d] for n texts, and tells (done, n) on the way. Not called when all are kept.
            progress: told (new texts done, all new texts).

        Returns:
            float32 [len(texts), d] in order, and how many texts were encoded now.
        """
        keys = [sha256(text.encode()).digest() for text in texts]
        kept = self._read(set(keys))
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in kept}
        waiting = list(new)
        for start in range(0, len(waiting), SHARD):

            def tell(done: int, _: int, before: int = start) -> None:
                if progress:
                    progress(before + done, len(new))

            part = waiting[start : start + SHARD]
            made = encode([new[key] for key in part], tell).astype(np.float32)
            self._write(part, made)
            kept |= dict(zip(part, made, strict=True))
        return (np.stack([kept[key] for key in keys]) if keys else np.zeros((0, 0), dtype=np.float32)), len(new)

    def _read(self, wanted: set[bytes]) -> dict[bytes, NDArray[np.float32]]:
        kept: dict[bytes, NDArray[np.float32]] = {}
        for path in sorted(self.folder.glob("*.npz")):
            try:
                content = path.read_bytes()
                if _name(content) != path.name:
                    path.rename(path.with_suffix(".damaged"))
                    continue
            except FileNotFoundError:  # another process found the damage first
                continue
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                kept |= {
                    at: vector for key, vector in zip(arrays["keys"], arrays["vectors"], strict=True) if (at := key.tobytes()) in wanted
                }
        return kept

    def _write(self, keys: list[bytes], vectors: NDArray[np.float32]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.savez(buffer, keys=np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), -1), vectors=vectors)
        content = buffer.getvalue()
        temporary = self.folder / f".{os.getpid()}.{threading.get_ident()}.tmp"
        temporary.write_bytes(content)
        temporary.replace(self.folder / _name(content))


def _name(content: bytes) -> str:
    return f"{sha256(content).hexdigest()[:32]}.npz"
