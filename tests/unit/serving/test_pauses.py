"""Long work beside requests pauses often, and for longer than it worked."""

from __future__ import annotations

import pytest

from nightloom.serving import pauses
from nightloom.serving.pauses import SHARE, WORK, Pauses


def test_a_pause_after_each_millisecond_of_work(monkeypatch: pytest.MonkeyPatch) -> None:
    used, slept = [100.0], list[float]()
    monkeypatch.setattr(pauses.time, "thread_time", lambda: used[0])
    monkeypatch.setattr(pauses.time, "sleep", slept.append)
    pause, step = Pauses(), 0.26 * WORK
    for _ in range(41):
        pause()
        used[0] += step
    assert slept == pytest.approx([SHARE * 4 * step] * 10)
    used[0] += 5 * WORK
    pause()
    assert slept[-1] == pytest.approx(SHARE * (5 * WORK + step))
