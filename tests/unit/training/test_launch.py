import json
from pathlib import Path
from typing import Any

import pytest

from nightloom.core.errors import InputError
from nightloom.training.launch import launch, report_epochs


def lines(*epochs: int, more: str = "") -> str:
    return "".join(json.dumps({"epoch": epoch, "more": more}) + "\n" for epoch in epochs)


def test_each_epoch_is_told_once_though_workers_write_the_file_anew(tmp_path: Path) -> None:
    curves, heard = tmp_path / "curves.jsonl", list[dict[str, Any]]()
    assert report_epochs(curves, 0, heard.append) == 0
    curves.write_text(lines(1, 2) + '{"epoch": 3', encoding="utf-8")  # the third is being written
    told = report_epochs(curves, 0, heard.append)
    assert [line["epoch"] for line in heard] == [1, 2]
    curves.write_text(lines(1, 2, 3, more="longer lines than before"), encoding="utf-8")
    told = report_epochs(curves, told, heard.append)
    curves.write_text(lines(1, 2), encoding="utf-8")  # a worker died and goes on from its checkpoint
    told = report_epochs(curves, told, heard.append)
    curves.write_text(lines(1, 2, 3, 4), encoding="utf-8")
    report_epochs(curves, told, heard.append)
    assert [line["epoch"] for line in heard] == [1, 2, 3, 4]


def test_far_more_workers_than_cores_are_refused_before_any_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nightloom.training.launch.cores", lambda: 3)
    with pytest.raises(InputError, match=r"training\.workers: 13 processes on 3 cores"):
        launch(tmp_path / "run.json", 13, tmp_path / "log.txt")
    assert list(tmp_path.iterdir()) == []
