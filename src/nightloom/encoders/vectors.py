"""The vectors of a catalogue's texts and pictures, as stage load_pretrained wrote them."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

MAPPED = 1 << 26
"""Bytes above which a file is mapped into memory, not read."""


@dataclass(frozen=True)
class Vectors:
    """Vectors of pretrained models, row i for dense item i.

    Attributes:
        text: float32 [items, text_dim].
        has_text: bool [items]; where false the row of `text` has no meaning.
        image: float32 [items, image_dim]; of width 0 where the catalogue has no image column.
        has_image: bool [items].
    """

    text: NDArray[np.float32]
    has_text: NDArray[np.bool_]
    image: NDArray[np.float32]
    has_image: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.text)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the folder of stage load_pretrained; without pictures in it no item has any."""
        text, has_text = (_mapped(folder / f"text_{name}.npy") for name in ("vectors", "mask"))
        if not (folder / "image_vectors.npy").exists():
            return cls.of_text(text.astype(np.float32, copy=False), has_text)
        image, has_image = (_mapped(folder / f"image_{name}.npy") for name in ("vectors", "mask"))
        return cls(text.astype(np.float32, copy=False), has_text, image.astype(np.float32, copy=False), has_image)

    @classmethod
    def of_text(cls, text: NDArray[np.float32], has_text: NDArray[np.bool_]) -> Self:
        """Vectors of a catalogue without pictures."""
        return cls(text, has_text, np.zeros((len(text), 0), dtype=np.float32), np.zeros(len(text), dtype=np.bool_))

    def forget(self) -> None:
        """Give back the memory of what was read of mapped files; it is read anew when it is needed."""
        for array in (self.text, self.image):
            if isinstance(array.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
                array.base.madvise(mmap.MADV_DONTNEED)

    @property
    def whole(self) -> bool:
        """Whether all parts are of one catalogue."""
        return len({len(part) for part in (self.text, self.has_text, self.image, self.has_image)}) == 1


def _mapped(path: Path) -> NDArray[Any]:
    """A file's array; the workers of a machine share the memory of a large one, as long as none writes to it."""
    found: NDArray[Any] = np.load(path, mmap_mode="c" if path.stat().st_size > MAPPED else None, allow_pickle=False)
    return found
