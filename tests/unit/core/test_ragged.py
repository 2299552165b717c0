"""Rows of different lengths in one flat array."""

from __future__ import annotations

import numpy as np
import pytest

from nightloom.core.ragged import ages, gather, offsets_among, offsets_of, owners, places

LENGTHS = ([3, 0, 2, 1], [0, 0], [], [4])


@pytest.mark.parametrize("lengths", LENGTHS)
def test_every_element_knows_its_row_and_place(lengths: list[int]) -> None:
    offsets = offsets_of(lengths)
    assert offsets.dtype == np.int64
    assert offsets.tolist() == [sum(lengths[:row]) for row in range(len(lengths) + 1)]
    assert owners(offsets).tolist() == [row for row, many in enumerate(lengths) for _ in range(many)]
    assert places(offsets).tolist() == [place for many in lengths for place in range(many)]
    assert ages(offsets).tolist() == [many - 1 - place for many in lengths for place in range(many)]


@pytest.mark.parametrize("lengths", LENGTHS)
def test_ranges_in_any_order_are_laid_end_to_end(lengths: list[int]) -> None:
    starts = np.arange(len(lengths), dtype=np.int64)[::-1] * 10
    expected = [start + place for start, many in zip(starts.tolist(), lengths, strict=True) for place in range(many)]
    assert gather(starts, np.array(lengths, dtype=np.int64)).tolist() == expected


def test_rows_keep_their_order_when_elements_go() -> None:
    kept = np.array([True, False, True, False, False, True])
    assert offsets_among(offsets_of([3, 0, 2, 1]), kept).tolist() == [0, 2, 2, 2, 3]
