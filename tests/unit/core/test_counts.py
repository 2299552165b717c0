from __future__ import annotations

import numpy as np
import pytest

from nightloom.core.counts import added


@pytest.mark.parametrize(("one", "other"), [([], []), ([1, 2], []), ([1, 2], [3, 4]), ([1], [2, 3, 4])])
def test_either_may_be_longer_and_neither_changes(one: list[int], other: list[int]) -> None:
    first, second = np.array(one, dtype=np.int64), np.array(other, dtype=np.int64)
    wanted = np.bincount([at for part in (one, other) for at, many in enumerate(part) for _ in range(many)])
    assert added(first, second).tolist() == added(second, first).tolist() == wanted.tolist()
    assert (first.tolist(), second.tolist()) == (one, other)
