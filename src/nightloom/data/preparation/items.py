"""Item features: category and tag codes, numbers, and the text that a language model reads.

Needs numpy and pandas alone, since training workers on bare machines and the server use it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nightloom.core.item_text import compose


@dataclass(frozen=True)
class ItemFeatures:
    """Coded attributes of some items.

    Attributes:
        offsets: int64 [n + 1]; item i has `codes[offsets[i]:offsets[i + 1]]`, ascending, each once.
        codes: int32, category and tag values of all columns in one shared code space.
        numbers: float32 [n, m], standardised; 0 where missing.
        numbers_known: bool [n, m], false where missing.
        n_codes: size of the code space.
    """

    offsets: NDArray[np.int64]
    codes: NDArray[np.int32]
    numbers: NDArray[np.float32]
    numbers_known: NDArray[np.bool_]
    n_codes: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def save(self, path: Path) -> None:
        """Write as .npz without pickles."""
        np.savez(path, **{name: getattr(self, name) for name in self.__dataclass_fields__})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            content = {name: arrays[name] for name in cls.__dataclass_fields__}
        return cls(**(content | {"n_codes": int(content["n_codes"])}))


@dataclass(frozen=True)
class FeatureSpec:
    """Vocabularies and scales learned from a catalogue, so that an item added later is coded the same.

    Attributes:
        kinds: item column -> text, category, tags, number, image or ignore.
        vocabularies: category or tags column -> its values, sorted; codes run on from column to column.
        scales: number column -> (mean, standard deviation) of the known values.
        tags_separator: what separates the values of a tags column that is a string.
    """

    kinds: Mapping[str, str]
    vocabularies: Mapping[str, list[str]]
    scales: Mapping[str, tuple[float, float]]
    tags_separator: str = "|"

    @classmethod
    def fit(cls, items: pd.DataFrame, kinds: Mapping[str, str], tags_separator: str = "|") -> Self:
        """Learn vocabularies and scales from a catalogue."""
        kinds = {column: kind for column, kind in kinds.items() if column in items}
        vocabularies, scales = {}, {}
        for column, kind in kinds.items():
            if kind in ("category", "tags"):
                vocabularies[column] = sorted(_values(items[column], kind, tags_separator).unique().tolist())
            elif kind == "number":
                known = _finite(items[column])
                known = known[np.isfinite(known)]
                spread = float(known.std()) if len(known) else 0.0
                scales[column] = (float(known.mean()) if len(known) else 0.0, spread or 1.0)
        return cls(kinds, vocabularies, scales, tags_separator)

    @property
    def n_codes(self) -> int:
        """Size of the shared code space."""
        return sum(len(values) for values in self.vocabularies.values())

    def describe(self) -> list[tuple[str, str]]:
        """Column and value of each code, in code order."""
        return [(column, value) for column, values in self.vocabularies.items() for value in values]

    def encode(self, items: pd.DataFrame) -> ItemFeatures:
        """Code items; a value that the spec does not know is dropped, a column that is absent counts as missing."""
        rows, codes, first = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
        for column, vocabulary in self.vocabularies.items():
            if column in items:
                values = _values(items[column].reset_index(drop=True), self.kinds[column], self.tags_separator)
                found = pd.Index(vocabulary, dtype=object).get_indexer(pd.Index(values.to_numpy(dtype=object)))
                rows.append(values.index.to_numpy(dtype=np.int64)[found >= 0])
                codes.append(found[found >= 0] + first)
            first += len(vocabulary)
        row, code = np.concatenate(rows), np.concatenate(codes)
        pairs = np.unique(row * max(self.n_codes, 1) + code)
        row, code = np.divmod(pairs, max(self.n_codes, 1))
        numbers = np.full((len(items), len(self.scales)), np.nan)
        for index, (column, (mean, spread)) in enumerate(self.scales.items()):
            if column in items:
                numbers[:, index] = (_finite(items[column]) - mean) / spread
        known = np.isfinite(numbers)
        return ItemFeatures(
            offsets=np.searchsorted(row, np.arange(len(items) + 1)).astype(np.int64),
            codes=code.astype(np.int32),
            numbers=np.where(known, numbers, 0).astype(np.float32),
            numbers_known=known,
            n_codes=self.n_codes,
        )

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(asdict(self), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        content = json.loads(path.read_text(encoding="utf-8"))
        return cls(**(content | {"scales": {column: (mean, spread) for column, (mean, spread) in content["scales"].items()}}))


def compose_text(items: pd.DataFrame, kinds: Mapping[str, str], tags_separator: str = "|") -> pd.Series:
    """The text that a language model reads: text columns, then categories and tags in words.

    For example "Toy Story (1995). genres: Animation, Comedy".

    Returns:
        str [len(items)] with the index of `items`; null where an item has neither text nor category nor tag.
    """
    described = [column for column in kinds if column in items]
    rows = zip(*(items[column].astype(object).where(items[column].notna(), None) for column in described), strict=True)
    texts = [compose(dict(zip(described, row, strict=True)), kinds, tags_separator) for row in rows] if described else [None] * len(items)
    return pd.Series(texts, index=items.index, dtype="str", name="text")


def _values(column: pd.Series, kind: str, tags_separator: str) -> pd.Series:
    """Category or tag values as stripped strings, one row a value, under the index of their item."""
    values = column.dropna()
    if kind == "tags":
        values = (
            values.map(lambda cell: cell.split(tags_separator) if isinstance(cell, str) else list(cell)).astype(object).explode().dropna()
        )
    values = values.astype(str).str.strip()
    return values[values != ""]


def _finite(column: pd.Series) -> NDArray[np.float64]:
    numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isfinite(numbers), numbers, np.nan)
