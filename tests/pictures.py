"""Small real pictures: a colour with some noise, so that no two are alike."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"red": (200, 40, 40), "green": (40, 180, 60), "blue": (50, 60, 210), "yellow": (220, 200, 40)}


def picture(colour: str, seed: int = 0, form: str = "PNG", size: tuple[int, int] = (40, 30)) -> bytes:
    """A file's bytes."""
    noise = np.random.default_rng(seed).normal(0, 12, (size[1], size[0], 3))
    pixels = np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def paint(path: Path, colour: str, seed: int = 0) -> Path:
    """Write a picture; its format is that of the file's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture(colour, seed, "JPEG" if path.suffix == ".jpg" else "PNG"))
    return path
