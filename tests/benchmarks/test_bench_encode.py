"""The encoding benchmark on a tiny model: it runs, and its figures of likeness mean what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.encode import Arm, agreement, main, rows_of
from tests.tiny_models import tiny_bert


def test_the_quick_run_compares_all_encoders_that_are_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    page = tmp_path / "encode.md"
    model = tiny_bert(tmp_path / "model")
    assert main(["--quick", "--set", f"pretrained.model={model}", "--table", str(page)]) == 0
    shown, text = capsys.readouterr().out, page.read_text()
    assert "made-up titles" in shown
    rows = {cells[1].strip(): [cell.strip() for cell in cells] for line in text.splitlines() if len(cells := line.split("|")) == 8}
    by_length = rows["torch fp32, by length"]
    assert by_length[5:7] == ["1.0000", "100.0%"]  # padding and order do not change a vector
    for name in ("pretrained.engine: fast (OpenVINO)", "ONNX Runtime int8, by length"):
        assert (name in rows) != (f"{name} is left out" in shown)
        assert name not in rows or float(rows[name][5]) > 0.95
    assert "Command: `python -m benchmarks.encode --quick" in text


def test_a_model_that_is_not_there_is_said_plainly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick", "--set", f"pretrained.model={tmp_path / 'none'}"]) != 0
    assert "none" in capsys.readouterr().out.replace("\n", "")


def test_ratios_are_of_medians_and_likeness_is_of_direction_and_neighbours() -> None:
    vectors = np.random.default_rng(1).normal(size=(60, 8)).astype(np.float32)
    assert agreement(vectors, 3 * vectors) == pytest.approx((1.0, 1.0))
    close, same = agreement(vectors, vectors[::-1])  # those of other texts
    assert close < 0.5
    assert same < 0.5
    arms = [Arm("plain", lambda _: vectors, 0.0, [6, 60, 5], vectors), Arm("other", lambda _: vectors, 1.5, [2, 1, 20], 2 * vectors)]
    assert rows_of(arms, 60)[1] == ["other", "33.33", "3.00x", "1.5", "1.0000", "100.0%"]
