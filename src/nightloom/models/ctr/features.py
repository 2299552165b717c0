"""What every click model reads: numbers (counters and the context's own) and codes of categorical values.

Counts span orders of magnitude and act in steps. So a number enters as its signed logarithm and as a piecewise linear encoding over
its quantiles: Gorishniy, Rubachev and Babenko, On Embeddings for Numerical Features in Tabular Deep Learning, NeurIPS 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from nightloom.data.preparation.impressions import Impressions
from nightloom.models.heads.piecewise_linear import piecewise_linear, quantiles

FloatArray = NDArray[np.float64]
FEWEST_ROWS = 10
"""Rows below which a value has no code of its own: it shares that of all rare and new values of its field."""


@dataclass(frozen=True)
class Inputs:
    """Rows as models read them.

    Attributes:
        codes: int64 [rows, fields]; fields have code ranges of their own, in one shared space.
        numbers: float32 [rows, m], for linear models and networks: standardised, 0 where missing, with flags of what is missing.
        raw: float64 [rows, counters and numbers], for trees, which need no scale: NaN where missing.
    """

    codes: NDArray[np.int64]
    numbers: NDArray[np.float32]
    raw: FloatArray

    def take(self, rows: slice | NDArray[np.int64]) -> Inputs:
        """Some of the rows."""
        return Inputs(self.codes[rows], self.numbers[rows], self.raw[rows])


@dataclass(frozen=True)
class Encoder:
    """Vocabularies, scales and quantiles learnt from the rows before a border.

    A number outside the range of its column there counts as the end of that range. A request long after training has counters that lie
    far outside, and a linear model or a network says nothing sensible there.

    Attributes:
        fields: names of the categorical fields.
        vocabularies: of each field the hashes that have a code of their own, sorted.
        columns: names of counters, then of numbers.
        centres: float64 [columns], mean.
        scales: float64 [columns], standard deviation.
        lowest: float64 [columns], in the unit of the centres; minus infinity where no row had a number.
        highest: likewise.
        holes: bool [columns], whether the column can be missing, so that a flag says where.
        bin_edges: of each number, not of counters, its distinct quantiles.
    """

    fields: tuple[str, ...]
    vocabularies: tuple[NDArray[np.int64], ...]
    columns: tuple[str, ...]
    centres: FloatArray
    scales: FloatArray
    lowest: FloatArray
    highest: FloatArray
    holes: NDArray[np.bool_]
    bin_edges: tuple[FloatArray, ...]

    @classmethod
    def fit(cls, rows: Impressions, until: int) -> Self:
        """Learn from the rows before `until`."""
        vocabularies = []
        for hashes in rows.hashes[:until].T:
            values, times = np.unique(hashes, return_counts=True)
            vocabularies.append(values[times >= FEWEST_ROWS])
        names, table = _table(rows, until)
        seen = table[:until]
        known = np.isfinite(seen)
        count = np.maximum(known.sum(0), 1)
        tamed = _tame(seen, len(rows.number_names))
        lowest = np.where(known, tamed, np.inf).min(0, initial=np.inf)
        highest = np.where(known, tamed, -np.inf).max(0, initial=-np.inf)
        lowest, highest = np.minimum(lowest, highest), np.maximum(lowest, highest)  # without a number no end
        tamed = np.where(known, tamed, 0)
        centres = tamed.sum(0) / count
        scales = np.sqrt((np.where(known, tamed - centres, 0) ** 2).sum(0) / count)
        bin_edges = [quantiles(column[np.isfinite(column)]) for column in rows.numbers[:until].T]
        holes: NDArray[np.bool_] = np.logical_not(known.all(0))
        scales = np.where(scales > 1e-6, scales, 1)
        return cls(rows.fields, tuple(vocabularies), names, centres, scales, lowest, highest, holes, tuple(bin_edges))

    @property
    def n_codes(self) -> int:
        """Size of the code space: each field's own values, and one code a field for all others."""
        return sum(len(values) + 1 for values in self.vocabularies)

    @property
    def n_numbers(self) -> int:
        """Width of `Inputs.numbers`."""
        return len(self.columns) + int(self.holes.sum()) + sum(max(len(one) - 1, 0) for one in self.bin_edges)

    def encode(self, rows: Impressions, until: int) -> Inputs:
        """All rows as inputs, with counters of what was known before row `until`."""
        codes, first = np.zeros(rows.hashes.shape, dtype=np.int64), 0
        for place, values in enumerate(self.vocabularies):
            hashes = rows.hashes[:, place]
            at = np.searchsorted(values, hashes)
            found = at < len(values)
            found[found] = values[at[found]] == hashes[found]
            codes[:, place] = first + np.where(found, at + 1, 0)
            first += len(values) + 1
        _, raw = _table(rows, until)
        known = np.isfinite(raw)
        tamed = np.clip(_tame(raw, len(rows.number_names)), self.lowest, self.highest)
        standard = np.where(known, (tamed - self.centres) / self.scales, 0)
        cut = [piecewise_linear(column, bin_edges) for column, bin_edges in zip(rows.numbers.T, self.bin_edges, strict=True)]
        numbers = np.column_stack([standard, ~known[:, self.holes], *cut]).astype(np.float32)
        return Inputs(codes, numbers, raw)


def _table(rows: Impressions, until: int) -> tuple[tuple[str, ...], FloatArray]:
    """Counters, then the context's numbers, float64 [rows, columns]."""
    counted = rows.counters(until)
    return (*counted, *rows.number_names), np.column_stack([*counted.values(), rows.numbers])


def _tame(table: FloatArray, numbers: int) -> FloatArray:
    """The last columns, the context's numbers, as signed logarithms; counters are logarithms already."""
    counters = table.shape[1] - numbers
    last = table[:, counters:]
    return np.column_stack([table[:, :counters], np.sign(last) * np.log1p(np.abs(last))])
