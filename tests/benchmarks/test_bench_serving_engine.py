"""The benchmark of the serving engine: made-up catalogues are ranked, subjects take turns."""

from __future__ import annotations

import pytest

from benchmarks import serving_engine


def test_a_made_up_catalogue_is_ranked() -> None:
    items, _, cost = serving_engine.made_up_row(700)
    assert items == "700"
    assert float(cost) >= 0


def test_subjects_take_turns() -> None:
    asked: list[str] = []
    found = serving_engine.in_turn({("one", 1): lambda _: asked.append("one"), ("other", 1): lambda _: asked.append("other")})
    each, warming = serving_engine.EACH, 2
    assert asked[warming : warming + 2 * each] == ["one"] * each + ["other"] * each
    assert {name for name, _ in found} == {"one", "other"}


def test_without_a_model_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: str) -> None:
    monkeypatch.setenv("NIGHTLOOM_ROOT", str(tmp_path))
    with pytest.raises(SystemExit, match=r"First: python -m benchmarks\.quality --preset movies-small --seeds 7 --minutes 1"):
        serving_engine.main(["--minutes", "1"])
