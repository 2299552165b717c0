"""Pictures in stage load_pretrained: they become vectors; unreadable ones are masked and listed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nightloom.core.errors import ContractBroken, InputError
from nightloom.data.preparation.items import FeatureSpec
from nightloom.data.tables.pictures import PICTURES, UNREADABLE, Picture, content, places
from nightloom.encoders.images import ImageEncoder, UnreadablePicture
from nightloom.encoders.vector_cache import Progress, VectorCache
from nightloom.encoders.weights import Weights, resolve

if TYPE_CHECKING:
    from nightloom.config import PretrainedConfig

SHARD = 512
"""Pictures in a shard of the cache at most."""

UNREAD = "unreadable_images.csv"
"""Every picture without a vector: `item_id`, `column`, `path`, `reason`."""

EXAMPLES = 5


def load_images(
    config: PretrainedConfig, prepared: Path, root: Path, folder: Path, progress: Progress | None = None
) -> dict[str, Any] | None:
    """Encode the catalogue's pictures. An item with several gets their mean; an item without any is masked.

    Args:
        config: which vision model, and how many pictures may be lost.
        prepared: folder of stage prepare.
        root: the mlruns folder; vectors are kept under `cache/images/` by the SHA-256 of the picture.
        folder: gets `image_vectors.npy` float32 [items, dim], `image_mask.npy` bool [items] and `unreadable_images.csv`.
        progress: called with (new pictures done, all new pictures).

    Returns:
        Figures, or None where the catalogue has no image column and nothing is written. Keys: model, path, sha256, source, dim, items,
        with_image (items), pictures (cells that name one), encoded and reused (pictures, each once), unreadable (cells), examples.

    Raises:
        InputError: the model is not found or is not what was expected.
        ContractBroken: more than `max_bad_images` of a column's named pictures can not be read.
    """
    columns = _columns(prepared)
    if not columns:
        return None
    items = pd.read_parquet(prepared / "items.parquet", columns=["item_id", *columns])
    if not (prepared / PICTURES).exists():
        raise InputError(f"{prepared}: {PICTURES} is missing, which says where the pictures lie. Run collect again.")
    known = places(prepared / PICTURES)
    keys = list(dict.fromkeys(key for column in columns for key in items[column].dropna()))
    reasons = {key: known[key].reason if key in known else "not among the pictures of the snapshot" for key in keys}
    lost = {key: reason for key, reason in reasons.items() if reason}
    readable = [key for key in keys if key not in lost]
    figures: dict[str, Any] = {"model": config.image_model, "path": None, "sha256": config.image_sha256, "source": None}
    found, encoded = np.zeros((0, 0), dtype=np.float32), 0
    if readable:
        weights = resolve(config.image_model, config.image_sha256, "pretrained.image_model")
        figures |= {"path": str(weights.path), "sha256": weights.sha256, "source": weights.source}
        cache = VectorCache(root / "cache" / "images" / weights.fingerprint[:16], SHARD)
        digests = [bytes.fromhex(key) for key in readable]
        found, encoded = cache.by_key(digests, _encoder(weights, known, lost), progress)
    row_of = {key: row for row, key in enumerate(readable) if key not in lost}
    vectors, mask = _of_items(items[columns], row_of, found)
    unread = _unread(items, columns, lost, known)
    unread.to_csv(folder / UNREAD, index=False)
    np.save(folder / "image_vectors.npy", vectors, allow_pickle=False)
    np.save(folder / "image_mask.npy", mask, allow_pickle=False)
    _check(items, columns, unread, config.max_bad_images, folder)
    return figures | {
        "dim": vectors.shape[1],
        "items": len(items),
        "with_image": int(mask.sum()),
        "pictures": int(items[columns].notna().to_numpy().sum()),
        "encoded": encoded,
        "reused": len(row_of) - encoded,
        "unreadable": len(unread),
        "examples": [f"{row.path}: {row.reason}" for row in unread.head(EXAMPLES).itertuples()],
    }


def has_pictures(prepared: Path) -> bool:
    """Whether a catalogue has a picture that could be read when it was collected.

    Args:
        prepared: folder of stage prepare.
    """
    if not (columns := _columns(prepared)):
        return False
    cells = pd.read_parquet(prepared / "items.parquet", columns=columns).to_numpy(dtype=object).ravel()
    return any(isinstance(cell, str) and not cell.startswith(UNREADABLE) for cell in cells)


def _columns(prepared: Path) -> list[str]:
    """Image columns of the items."""
    spec = prepared / "feature_spec.json"
    features = FeatureSpec.load(spec).kinds if spec.exists() else {}
    return [column for column, feature in features.items() if feature == "image"]


def _encoder(weights: Weights, known: dict[str, Picture], lost: dict[str, str]) -> Callable[[list[bytes], Progress], NDArray[np.float32]]:
    """A function that encodes new pictures. It loads the model at its first call, and adds unreadable pictures to `lost`."""
    encoder: ImageEncoder | None = None

    def read(key: str) -> bytes:
        picture, reason = content(known[key])
        if reason:
            raise UnreadablePicture(reason)
        return picture

    def encode(new: list[bytes], tell: Progress) -> NDArray[np.float32]:
        nonlocal encoder
        encoder = encoder or ImageEncoder.from_weights(weights)
        keys = [digest.hex() for digest in new]
        return encoder.encode([partial(read, key) for key in keys], tell, lambda row, why: lost.update({keys[row]: why}))

    return encode


def _of_items(cells: pd.DataFrame, row_of: dict[str, int], found: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Mean vector of each item's pictures (zero where it has none), and whether it has any."""
    total, count = np.zeros((len(cells), found.shape[1]), dtype=np.float32), np.zeros(len(cells), dtype=np.int64)
    for column in cells:
        rows = np.array([row_of.get(key, -1) if isinstance(key, str) else -1 for key in cells[column]], dtype=np.int64)
        total[rows >= 0] += found[rows[rows >= 0]]
        count += rows >= 0
    vectors: NDArray[np.float32] = total / np.maximum(count, 1).astype(np.float32)[:, None]
    return vectors, count > 0


def _unread(items: pd.DataFrame, columns: list[str], lost: dict[str, str], known: dict[str, Picture]) -> pd.DataFrame:
    """A row for each cell whose picture could not be read."""
    rows = [
        (item_id, column, known[key].path if key in known else key.removeprefix(UNREADABLE), lost[key])
        for column in columns
        for item_id, key in zip(items["item_id"], items[column], strict=True)
        if isinstance(key, str) and key in lost
    ]
    return pd.DataFrame(rows, columns=["item_id", "column", "path", "reason"], dtype="str")


def _check(items: pd.DataFrame, columns: list[str], unread: pd.DataFrame, limit: float, folder: Path) -> None:
    """Refuse a column with too many lost pictures."""
    for column in columns:
        mine, named = unread[unread["column"] == column], int(items[column].notna().sum())
        if len(mine) > limit * named:
            shown = "".join(f"\n    {row.item_id}: {row.path}: {row.reason}" for row in mine.head(EXAMPLES).itertuples())
            raise ContractBroken(
                f"items.{column}: {len(mine):,} of {named:,} pictures can not be read, the limit is {limit:.2%} "
                f"(pretrained.max_bad_images).{shown}\n    All are listed in {folder / UNREAD}: mend the files or the column, or raise the "
                "limit; items without a picture are then told apart by the rest that is known of them.",
                folder,
            )
