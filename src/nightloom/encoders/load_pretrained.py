"""Stage load_pretrained: find and check the pretrained models, and turn the items' texts and pictures into vectors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nightloom.core.errors import InputError
from nightloom.core.files import write_json
from nightloom.encoders.blocks import Elsewhere, Encoder, Encoding
from nightloom.encoders.load_images import has_pictures, load_images
from nightloom.encoders.text import pooling_of
from nightloom.encoders.text_cache import TextCache
from nightloom.encoders.vector_cache import Progress
from nightloom.encoders.weights import fingerprint_here, resolve

if TYPE_CHECKING:
    from nightloom.config import PretrainedConfig


def fingerprints(config: PretrainedConfig, prepared: Path) -> dict[str, str]:
    """The models that a catalogue needs, each with the fingerprint of its files as they are now.

    A folder may hold another model than last night under the same name. A catalogue without text needs no language model, and one without
    a readable picture no vision model.

    Args:
        config: which models.
        prepared: folder of stage prepare.

    Returns:
        Key of the section `pretrained` (model, image_model) -> fingerprint.

    Raises:
        InputError: a model is not found or is not what was expected.
    """
    found = {}
    if any(_texts(prepared)):
        found["model"] = resolve(config.model, config.sha256).fingerprint
    if has_pictures(prepared):
        found["image_model"] = resolve(config.image_model, config.image_sha256, "pretrained.image_model").fingerprint
    return found


def replaced(config: PretrainedConfig, known: Mapping[str, str]) -> bool:
    """Whether a model's files differ from its fingerprint.

    Nothing is fetched. A model that is no longer on this machine has not been replaced.

    Args:
        config: which models.
        known: what `fingerprints` gave.
    """
    try:
        return any(fingerprint_here(getattr(config, key)) not in (None, fingerprint) for key, fingerprint in known.items())
    except InputError:  # a folder without weights now: loading it will say so
        return True


def load_pretrained(
    config: PretrainedConfig,
    prepared: Path,
    root: Path,
    folder: Path,
    progress: Progress | None = None,
    pictures_progress: Progress | None = None,
    elsewhere: Elsewhere | None = None,
) -> dict[str, Any]:
    """Encode the catalogue's texts and pictures; write the files that ARCHITECTURE.md lists for this stage.

    Args:
        config: which models, and how texts become vectors.
        prepared: folder of stage prepare.
        root: the mlruns folder; vectors are kept under `cache/text/` and `cache/images/`.
        folder: gets `text_vectors.npy`, `text_mask.npy`, `texts.json`, `pretrained.json`, and the files of `load_images`.
        progress: called with (new texts done, all new texts).
        pictures_progress: called with (new pictures done, all new pictures).
        elsewhere: encodes new texts, where they are more than a block.

    Returns:
        The content of pretrained.json: model, path, sha256, source, pooling, max_tokens, dim, items; texts encoded now, reused from the
        cache (each text once) and missing; `images`: the figures of `load_images`.

    Raises:
        InputError: the model is not found or is not what was expected. A catalogue without text needs no model and gets vectors of
            width 0.
        ContractBroken: too many pictures can not be read.
    """
    texts = _texts(prepared)
    present = [text for text in texts if text is not None]
    mask = np.array([text is not None for text in texts], dtype=bool)
    figures: dict[str, Any] = {"model": config.model, "path": None, "sha256": config.sha256, "source": None, "pooling": config.pooling}
    vectors, encoded = np.zeros((len(texts), 0), dtype=np.float32), 0
    if present:
        weights = resolve(config.model, config.sha256)
        pooling = pooling_of(weights.path, config.pooling)
        encoding = Encoding.of(weights, config.model, pooling, config.max_tokens, config.engine, root)
        spread = (lambda new: elsewhere(encoding, new, progress or (lambda *_: None))) if elsewhere else None
        found, encoded = TextCache(Path(encoding.cache)).vectors(present, Encoder(encoding, weights), progress, spread)
        vectors = found
        if not mask.all():
            vectors = np.zeros((len(texts), found.shape[1]), dtype=np.float32)
            vectors[mask] = found
        figures |= {"path": str(weights.path), "sha256": weights.sha256, "source": weights.source, "pooling": pooling}
    figures |= {"max_tokens": config.max_tokens, "dim": vectors.shape[1], "items": len(texts)}
    figures |= {"encoded": encoded, "reused": len(set(present)) - encoded, "missing": len(texts) - len(present)}
    np.save(folder / "text_vectors.npy", vectors, allow_pickle=False)
    np.save(folder / "text_mask.npy", mask, allow_pickle=False)
    (folder / "texts.json").write_text(json.dumps(texts, ensure_ascii=False), encoding="utf-8")
    figures["images"] = load_images(config, prepared, root, folder, pictures_progress)
    write_json(folder / "pretrained.json", figures)
    return figures


def _texts(prepared: Path) -> list[str | None]:
    """Each item's text, None where it has none or a blank one."""
    path = prepared / "items.parquet"
    try:
        column = pd.read_parquet(path, columns=["text"])["text"].tolist()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no readable column `text` ({error}). Run prepare again.") from error
    return [text if isinstance(text, str) and text.strip() else None for text in column]
