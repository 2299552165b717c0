"""Vectors of contents kept from night to night by digest, so that only what is new is encoded.

Each model has a folder of append-only shards. A shard is named by the digest of its bytes. A damaged one is therefore noticed, renamed and
encoded again, and two processes can write at the same time.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Container, Sequence
from hashlib import sha256
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from nightloom.core.digests import differs, set_aside
from nightloom.core.errors import DamagedError
from nightloom.core.files import whole_file

Progress = Callable[[int, int], None]


class VectorCache:
    """Vectors by digest of what they were made from.

    Args:
        folder: one folder for each model and each way of encoding.
        shard: most contents in a shard, and the most that a killed run loses.
    """

    def __init__(self, folder: Path, shard: int) -> None:
        self.folder, self.shard = folder, shard

    def by_key(
        self,
        keys: Sequence[bytes],
        encode: Callable[[list[bytes], Progress], NDArray[np.float32]],
        progress: Progress | None = None,
        elsewhere: Callable[[list[bytes]], None] | None = None,
    ) -> tuple[NDArray[np.float32], int]:
        """Vectors by key, encoding those not kept yet, each once.

        Args:
            keys: digests, all of one length; may repeat.
            encode: gives float32 [n, d] for n keys, and reports (done, n). A row of NaN means that a key has no vector, and is not kept.
                Not called when all are kept.
            progress: called with (new keys done, all new keys).
            elsewhere: has other processes write the vectors of new keys to the folder, where these fill more than one shard.

        Returns:
            float32 [len(keys), d] in order, and how many were encoded now.
        """
        kept = self._read(set(keys))
        waiting = [key for key in dict.fromkeys(keys) if key not in kept]
        encoded = 0
        if elsewhere and len(waiting) > self.shard:
            elsewhere(waiting)
            made = self._read(set(waiting))
            kept, encoded, waiting = kept | made, len(made), [key for key in waiting if key not in made]
        for start in range(0, len(waiting), self.shard):

            def tell(done: int, _: int, before: int = start) -> None:
                if progress:
                    progress(before + done, len(waiting))

            part = waiting[start : start + self.shard]
            vectors = encode(part, tell).astype(np.float32)
            whole = ~np.isnan(vectors[:, 0])
            if whole.any():
                self._write([key for key, good in zip(part, whole.tolist(), strict=True) if good], vectors[whole])
            encoded += int(whole.sum())
            kept |= dict(zip(part, vectors, strict=True))
        return (np.stack([kept[key] for key in keys]) if len(keys) else np.zeros((0, 0), dtype=np.float32)), encoded

    def _read(self, wanted: set[bytes]) -> dict[bytes, NDArray[np.float32]]:
        kept: dict[bytes, NDArray[np.float32]] = {}
        for path in sorted(self.folder.glob("*.npz")):
            try:
                content = path.read_bytes()
                if (name := _name(content)) != path.name:
                    set_aside(path, DamagedError(path, differs(name, path.name)), "what it held is encoded again")
                    continue
            except FileNotFoundError:  # another process found the damage first
                continue
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                kept |= {
                    at: vector for key, vector in zip(arrays["keys"], arrays["vectors"], strict=True) if (at := key.tobytes()) in wanted
                }
        return kept

    def _write(self, keys: list[bytes], vectors: NDArray[np.float32]) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, keys=np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), -1), vectors=vectors)
        content = buffer.getvalue()
        with whole_file(self.folder / _name(content)) as temporary:
            temporary.write_bytes(content)


def unused_shards(home: Path, wanted: Container[bytes], before: float) -> list[Path]:
    """Files of a kind's caches that nothing needs any more: shards without a wanted vector, and what a kill left.

    Args:
        home: the folder of the caches, one below it for each model.
        wanted: digests of the contents that stay; see `VectorCache.by_key`.
        before: seconds since 1970; what was written later stays.
    """
    unused = []
    for path in sorted(home.glob("*/*")):
        if not path.is_file() or path.stat().st_mtime >= before:
            continue
        if path.suffix == ".npz":
            try:
                with np.load(path, allow_pickle=False) as arrays:
                    if any(key.tobytes() in wanted for key in arrays["keys"]):
                        continue
            except (OSError, ValueError, KeyError, EOFError, BadZipFile):
                continue  # a damaged one is set aside by the next night that reads it
        unused.append(path)
    return unused


def _name(content: bytes) -> str:
    return f"{sha256(content).hexdigest()[:32]}.npz"
