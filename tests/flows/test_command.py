"""What the commands share: arguments, exit codes, and how they end."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from rich.console import Console

from flows.command import config_of, listed, parser, run
from nightloom.core.errors import InputError, TrainingError


@pytest.fixture(autouse=True)
def _signals_as_they_were() -> object:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_config_is_a_preset_or_a_file_with_overrides(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\ndata: {events: e.csv}\n", encoding="utf-8")
    preset = config_of(parser("nightly", "One.").parse_args(["--preset", "movies-small", "--set", "training.epochs=3"]))
    file = config_of(parser("nightly", "One.").parse_args(["--config", str(tmp_path / "mine.yaml")]))
    assert (preset.name, preset.training.epochs, file.name) == ("movies-small", 3, "mine")
    for wrong in ([], ["--preset", "movies", "--config", "mine.yaml"]):
        with pytest.raises(SystemExit):
            parser("nightly", "One.").parse_args(wrong)
    assert parser("transfer", "Two.", config=False).parse_args([]).overrides == []


def test_families_are_listed_once_in_their_order_and_unknown_ones_refused() -> None:
    known = ("ease", "gru", "als")
    assert listed(None, known) == list(known)
    assert listed("gru, ease,gru", known) == ["gru", "ease"]
    for wrong in ("ease,nearest", ","):
        with pytest.raises(InputError, match=r"no click model is named .*There are: ease, gru, als"):
            listed(wrong, known, "click model")


def test_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    def fails(error: Exception) -> int:
        raise error

    def shown(result: int, console: Console) -> int:
        console.print(f"result {result}")
        return result

    assert run(lambda: 0, shown) == 0
    assert run(lambda: 1, shown) == 1
    assert run(lambda: 5, lambda result, console: None) == 0
    assert run(lambda: fails(InputError("ratings.csv: [no] rows")), shown) == 2
    assert run(lambda: fails(TrainingError("worker 1 died")), shown) == 1
    said = capsys.readouterr()
    assert said.out.split("\n")[:2] == ["result 0", "result 1"]
    assert said.err.split("\n")[:2] == ["InputError: ratings.csv: [no] rows", "TrainingError: worker 1 died"]
    with pytest.raises(ZeroDivisionError):
        run(lambda: fails(ZeroDivisionError()), shown)


def test_a_sigterm_unwinds_unless_threads_work() -> None:
    def end(_: object = None) -> int:
        signal.raise_signal(signal.SIGTERM)
        return 0

    with pytest.raises(SystemExit) as ended:
        run(end, lambda result, console: None)
    assert ended.value.code == 128 + signal.SIGTERM
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert run(end, lambda result, console: None, unwind=False) == 0
