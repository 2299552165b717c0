"""Which items of a bundle may be shown: what a blocklist leaves, by the id and the described columns of each item."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightloom.core.blocklist import Blocklist
from nightloom.core.item_text import missing
from nightloom.packaging.reader import BundleReader

UNDESCRIBED = ("item_id", "text")
"""Columns that describe nothing of their own: the id, and the text that was composed of the others."""


def shown_mask(bundle: BundleReader, blocklist: Blocklist) -> NDArray[np.bool_] | None:
    """The items that a blocklist leaves, bool [items] by dense id; None where it blocks none."""
    if not blocklist:
        return None
    found = [blocklist.reason(item, columns, bundle.tags_separator) is None for item, columns in known_columns(bundle)]
    return None if all(found) else np.array(found, dtype=np.bool_)


def blocked_ids(bundle: BundleReader, blocklist: Blocklist) -> frozenset[str]:
    """Ids of the items that are not to be shown."""
    shown = shown_mask(bundle, blocklist)
    return frozenset() if shown is None else frozenset(bundle.item_ids[~shown].tolist())


def known_columns(bundle: BundleReader) -> list[tuple[str, dict[str, Any]]]:
    """The id of each item, and its described columns without what is missing."""
    table = bundle.catalogue
    names = [name for name in table.names if name not in UNDESCRIBED]
    rows = zip(*(table[name] for name in names), strict=True) if names else (() for _ in bundle.item_ids)
    cells = ({name: cell for name, cell in zip(names, row, strict=True) if not missing(cell)} for row in rows)
    return list(zip(bundle.item_ids.tolist(), cells, strict=True))
