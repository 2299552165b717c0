"""Vectors of real pictures by a small real vision model."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nightloom.core.errors import InputError
from nightloom.encoders.images import BATCH, ImageEncoder, UnreadablePicture, decode
from tests.pictures import picture
from tests.tiny_models import DIM, tiny_bert, tiny_vit


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> ImageEncoder:
    torch.set_num_threads(1)
    return ImageEncoder.load(str(tiny_vit(tmp_path_factory.mktemp("vit") / "vit")))


def encode(encoder: ImageEncoder, *pictures: bytes, **told) -> np.ndarray:
    return encoder.encode([partial(bytes, one) for one in pictures], **told)


def saved(image: Image.Image, form: str = "PNG", **settings) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **settings)
    return buffer.getvalue()


def test_a_vector_is_its_picture_s_alone(encoder: ImageEncoder) -> None:
    colours = ["red", "green", "blue"] * (BATCH // 3 + 1)
    many = [picture(colour, seed) for seed, colour in enumerate(colours)]
    told: list[tuple[int, int]] = []
    together = encode(encoder, *many, progress=lambda done, total: told.append((done, total)))
    assert together.shape == (len(many), DIM)
    assert together.dtype == np.float32
    for row in (0, 1, len(many) - 1):
        np.testing.assert_allclose(encode(encoder, many[row])[0], together[row], atol=1e-5)
    assert told == [(BATCH, len(many)), (len(many), len(many))]
    apart = np.linalg.norm(together[:, None] - together[None], axis=2)
    same = np.array(colours)[:, None] == np.array(colours)[None]
    assert apart[same].max() < apart[~same].min()  # alike is near


def test_what_can_not_be_read_is_told_and_has_no_vector(encoder: ImageEncoder) -> None:
    whole = picture("red", size=(300, 200))
    broken = {"text": b"<html>404</html>", "cut": whole[: len(whole) // 2], "narrow": saved(Image.new("RGB", (500, 3)))}
    lost: dict[int, str] = {}
    vectors = encode(encoder, whole, *broken.values(), picture("blue"), lost=lost.__setitem__)
    assert np.isnan(vectors).all(1).tolist() == [False, True, True, True, False]
    assert sorted(lost) == [1, 2, 3]
    assert "not a format" in lost[1]
    assert "truncated" in lost[2]
    assert "500 x 3" in lost[3]
    np.testing.assert_allclose(vectors[[0, 4]], encode(encoder, whole, picture("blue")), atol=1e-5)


def test_pictures_of_every_make_are_seen_as_people_see_them() -> None:
    red = Image.new("RGB", (30, 20), (200, 0, 0))
    clear = Image.new("RGBA", (30, 20), (0, 0, 0, 0))
    clear.paste((200, 0, 0, 255), (0, 0, 15, 20))
    pixels = np.asarray(decode(saved(clear)))
    assert pixels[5, 5].tolist() == [200, 0, 0]
    assert pixels[5, 25].tolist() == [255, 255, 255]  # nothing is white, not black
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held upright
    assert decode(saved(red, "JPEG", exif=turned)).size == (20, 30)
    for form, mode in (("PNG", "L"), ("PNG", "P"), ("JPEG", "CMYK"), ("GIF", "P"), ("PNG", "I;16"), ("WEBP", "RGB"), ("PNG", "1")):
        image = decode(saved(red.convert("L").convert(mode) if mode == "I;16" else red.convert(mode), form))
        assert (image.mode, image.size) == ("RGB", (30, 20))
    with pytest.raises(UnreadablePicture):
        decode(b"")


def test_a_large_photo_is_seen_as_a_small_one(encoder: ImageEncoder) -> None:
    """JPEG may be decoded at a fraction of its size; what the model sees stays the same but for rounding."""
    large = Image.effect_mandelbrot((4096, 3072), (-3, -2.5, 2, 2.5), 50).convert("RGB")
    fast, slow = decode(saved(large, "JPEG", quality=95)), large
    assert fast.size[0] < 4096
    a, b = (encode(encoder, saved(one))[0] for one in (fast, slow))
    assert (a @ b) / np.linalg.norm(a) / np.linalg.norm(b) > 0.999


def test_without_pillow_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nightloom.encoders.images.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"need the package pillow.*nightloom\[night\]"):
        ImageEncoder.load(str(tiny_vit(tmp_path / "vit")))


def test_a_model_that_sees_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pretrained\.image_model.*bert model, which sees no pictures"):
        ImageEncoder.load(str(tiny_bert(tmp_path / "bert")))
    with pytest.raises(InputError, match=r"pretrained\.image_model: there is no folder"):
        ImageEncoder.load(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"set pretrained\.image_sha256"):
        ImageEncoder.load(str(tiny_vit(tmp_path / "vit")), sha256="0" * 64)
