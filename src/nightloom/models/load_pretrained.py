"""Stage load_pretrained: the language model is found and checked, and the items' texts become vectors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nightloom.models.text import TextEncoder
from nightloom.models.text_cache import TextCache
from nightloom.models.weights import resolve
from nightloom.stage import write_json

if TYPE_CHECKING:
    from nightloom.config import PretrainedConfig

Progress = Callable[[int, int], None]


def load_pretrained(config: PretrainedConfig, prepared: Path, root: Path, folder: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Encode the catalogue's texts and write what ARCHITECTURE.md lists for this stage.

    Args:
        config: which model, and how texts become vectors.
        prepared: folder of stage prepare.
        root: the mlruns folder; vectors are kept under `cache/text/`.
        folder: gets `text_vectors.npy`, `text_mask.npy`, `texts.json` and `pretrained.json`.
        progress: called with (texts done, all) while new texts are encoded.

    Returns:
        Figures: model, sha256, source, pooling, dim, items, encoded, reused, missing.

    Raises:
        InputError: the model is not found or is not what was expected. A catalogue without any text needs no model.
    """
    column = pd.read_parquet(prepared / "items.parquet", columns=["text"])["text"]
    texts: list[str | None] = [text if isinstance(text, str) and text.strip() else None for text in column.tolist()]
    mask = np.array([text is not None for text in texts], dtype=bool)
    figures: dict[str, Any] = {"model": config.model, "items": len(texts), "missing": int((~mask).sum()), "encoded": 0, "reused": 0}
    vectors = np.zeros((len(texts), 0), dtype=np.float32)
    if mask.any():
        weights = resolve(config.model, config.sha256)
        figures |= {"path": str(weights.path), "sha256": weights.sha256, "source": weights.source}
        cache = TextCache(root / "cache" / "text" / f"{weights.sha256[:16]}-{config.pooling}-{config.max_tokens}")

        def encode(new: list[str]) -> NDArray[np.float32]:
            encoder = TextEncoder.load(config.model, pooling=config.pooling, max_tokens=config.max_tokens, sha256=config.sha256)
            return encoder.encode(new, progress)

        found, encoded = cache.vectors([text for text in texts if text is not None], encode)
        vectors = np.zeros((len(texts), found.shape[1]), dtype=np.float32)
        vectors[mask] = found
        figures |= {"encoded": encoded, "reused": len({text for text in texts if text is not None}) - encoded}
    figures |= {"dim": vectors.shape[1], "pooling": config.pooling, "max_tokens": config.max_tokens}
    np.save(folder / "text_vectors.npy", vectors, allow_pickle=False)
    np.save(folder / "text_mask.npy", mask, allow_pickle=False)
    (folder / "texts.json").write_text(json.dumps(texts, ensure_ascii=False), encoding="utf-8")
    write_json(folder / "pretrained.json", figures)
    return figures
