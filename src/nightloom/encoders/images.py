"""Image vectors by a pretrained vision model: vision transformers (ViT, DINOv2, Swin), convolutional networks, and CLIP models.

The model and its image processor are read from a local folder as in `nightloom.encoders.loading`. Pillow always decodes
and resizes, so a vector depends on the picture and the model alone.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nightloom.core.errors import InputError
from nightloom.encoders.loading import load_model, loading, quiet
from nightloom.encoders.weights import Weights, resolve

BATCH = 16
"""Pictures in a batch."""

DECODED = 1024
"""JPEG files may be decoded at a fraction of their size, but not below this width and height; models read 224 to 518."""

NARROWEST = 20
"""Largest ratio of sides: a narrower picture shows nothing, and resized by its short side it would fill the memory."""


class UnreadablePicture(Exception):
    """Why a picture has no vector, in words."""


class ImageEncoder:
    """A vision model with its image processor: pictures in, one vector a picture out.

    Args:
        model: a transformers model without a head.
        processor: its image processor.
        digest: SHA-256 of the weights that it was loaded from.

    Attributes:
        dim: width of a vector.
    """

    def __init__(self, model: Any, processor: Any, digest: str) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model, self.processor, self.digest = model.to(self.device).eval(), processor, digest
        self.dim = int(self._vectors([self.pixels(_blank())]).shape[1])

    @classmethod
    def load(cls, model: str, sha256: str | None = None) -> Self:
        """Find, check and load a model.

        Args:
            model: hub name or local folder (`nightloom.encoders.weights.resolve`).
            sha256: expected digest of the weights.

        Raises:
            InputError: the model is not found, refused, or no vision model; or Pillow is not installed.
        """
        return cls.from_weights(resolve(model, sha256, "pretrained.image_model"))

    @classmethod
    def from_weights(cls, weights: Weights) -> Self:
        """Load a model that is already found and checked; see `load`."""
        if find_spec("PIL") is None:
            raise InputError("image columns need the package pillow. Run `pip install 'nightloom[night]'`.")
        from transformers import AutoImageProcessor

        model = load_model(weights.path)
        if not hasattr(model, "get_image_features") and getattr(model, "main_input_name", None) != "pixel_values":
            raise InputError(
                f"pretrained.image_model: {weights.path} holds a {model.config.model_type} model, which sees no pictures. "
                "Name a vision model, such as facebook/dinov2-small."
            )
        with loading(weights.path):
            processor = AutoImageProcessor.from_pretrained(weights.path, backend="pil", trust_remote_code=False, local_files_only=True)
        try:
            return cls(model, processor, weights.sha256)
        except (ValueError, TypeError, RuntimeError, AttributeError, KeyError) as error:
            raise InputError(
                f"pretrained.image_model: {weights.path} can not be asked for one vector a picture ({type(error).__name__}: {error}). "
                "Name another vision model, such as facebook/dinov2-small."
            ) from error

    def encode(
        self,
        pictures: Sequence[Callable[[], bytes]],
        progress: Callable[[int, int], None] | None = None,
        lost: Callable[[int, str], None] | None = None,
    ) -> NDArray[np.float32]:
        """Vectors of many pictures.

        Args:
            pictures: callables that give a file's bytes, so that few are in memory at once; they may raise UnreadablePicture.
            progress: called with (pictures done, all pictures) after each batch.
            lost: called with the row of an unreadable picture, and why.

        Returns:
            float32 [len(pictures), dim], NaN where a picture could not be read.
        """
        vectors = np.full((len(pictures), self.dim), np.nan, dtype=np.float32)
        for start in range(0, len(pictures), BATCH):
            rows, pixels = [], []
            for row in range(start, min(start + BATCH, len(pictures))):
                try:
                    pixels.append(self.pixels(decode(pictures[row]())))
                    rows.append(row)
                except UnreadablePicture as reason:
                    if lost:
                        lost(row, str(reason))
            if rows:
                vectors[rows] = self._vectors(pixels).cpu().numpy()
            if progress:
                progress(min(start + BATCH, len(pictures)), len(pictures))
        return vectors

    def pixels(self, image: Any) -> Tensor:
        """A picture as the model reads it, float32 [channels, height, width]."""
        with quiet():
            made = self.processor(images=np.asarray(image), return_tensors="pt", input_data_format="channels_last")
        pixels: Tensor = made["pixel_values"][0]
        return pixels

    @torch.no_grad()
    def _vectors(self, pixels: Sequence[Tensor]) -> Tensor:
        """Vectors of a batch, float32 [n, dim]: the class token, else the mean over all places; for CLIP the projected features."""
        batch = torch.stack(list(pixels)).to(self.device)
        if hasattr(self.model, "get_image_features"):
            found = self.model.get_image_features(pixel_values=batch)
            vectors: Tensor = getattr(found, "pooler_output", found)
            return vectors
        hidden: Tensor = self.model(pixel_values=batch).last_hidden_state
        if hidden.ndim == 4:
            return hidden.mean((2, 3))
        tokens = getattr(getattr(self.model, "embeddings", None), "cls_token", None)
        return hidden[:, 0] if tokens is not None else hidden.mean(1)


def decode(content: bytes) -> Any:
    """A file's first picture as Pillow has it, RGB, upright, on white where it is transparent.

    Raises:
        UnreadablePicture: the bytes are no picture, or not a whole one.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content)) as opened:
                opened.draft("RGB", (DECODED, DECODED))
                image = ImageOps.exif_transpose(opened)
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            image = image.convert("RGB")
    except Exception as error:  # whatever a decoder raises on a broken file: the picture is lost, the night is not
        raise UnreadablePicture(f"no whole picture ({type(error).__name__}: {_first_line(error)})") from error
    width, height = image.size
    if max(width, height) > NARROWEST * min(width, height):
        raise UnreadablePicture(f"too narrow to show anything ({width} x {height})")
    return image


def _blank() -> Any:
    from PIL import Image

    return Image.new("RGB", (64, 64), "white")


def _first_line(error: Exception) -> str:
    line = next(iter(str(error).splitlines()), "")
    return "not a format that Pillow knows" if line.startswith("cannot identify image file") else line
