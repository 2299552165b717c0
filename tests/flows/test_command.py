"""What the commands share: arguments, refusals before anything heavy is imported, exit codes, and how they end."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from flows.command import listed, parsed, parser, run
from nightloom.core.errors import InputError, TrainingError

ROOT = Path(__file__).parents[2]
HEAVY = ("prefect", "great_expectations", "mlflow", "torch", "pandas", "transformers")


@pytest.fixture(autouse=True)
def _signals_as_they_were() -> object:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_config_is_a_preset_or_a_file_with_overrides(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\ndata: {events: e.csv}\n", encoding="utf-8")
    command = parser("nightly", "One.")
    preset = parsed(command, arguments=["--preset", "movies-small", "--set", "training.epochs=3"]).config
    file = parsed(command, arguments=["--config", str(tmp_path / "mine.yaml")]).config
    assert (preset.name, preset.training.epochs, file.name) == ("movies-small", 3, "mine")
    for wrong in ([], ["--preset", "movies", "--config", "mine.yaml"]):
        with pytest.raises(SystemExit):
            parsed(command, arguments=wrong)
    assert parsed(parser("transfer", "Two.", config=False), arguments=[]).overrides == []


FLOWS = {
    "nightly": (["--preset", "movies-small", "--set", "training.epoch=3"], "training.epoch: unknown key; did you mean 'epochs'?"),
    "baselines": (["--preset", "movies-small", "--models", "ease,nearest"], "no family is named 'nearest'"),
    "clicks": (["--preset", "movies-small", "--models", "forest"], "no click model is named 'forest'"),
    "replay": (["--preset", "movies-small", "--nights", "0"], "--nights 0: nothing is lived again then"),
    "transfer": (["--source", "office", "--target", "industrial", "--shares", "5"], "--shares: 5 is not a share of the users"),
    "tune": (["--preset", "movies-small", "--minutes", "0"], "--minutes 0: nothing can be tried in that"),
    "check": (["--preset", "moves"], "no preset is named 'moves'"),
    "deploy": (["--preset", "movies-small", "--timezone", "Mars/Olympus"], "there is no time zone 'Mars/Olympus'"),
}


def light(flow: str, *arguments: str) -> tuple[int, str]:
    """Exit code and standard error of a flow's command; fails where it imported something that takes seconds."""
    code = (
        "import runpy, sys\n"
        f"sys.argv = [{flow!r}, *{list(arguments)!r}]\n"
        "try:\n"
        f"    runpy.run_module('flows.{flow}', run_name='__main__', alter_sys=True)\n"
        "finally:\n"
        f"    heavy = {{*{HEAVY!r}}} & set(sys.modules)\n"
        "    assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    return done.returncode, done.stderr


def test_each_flow_is_listed_here() -> None:
    others = {"__init__", "command", "families", "form", "orphans", "dead_runs"}
    assert {path.stem for path in (ROOT / "flows").glob("*.py")} - others == set(FLOWS)


@pytest.mark.parametrize("flow", FLOWS)
def test_a_typo_is_refused_and_help_is_given_before_anything_heavy_is_imported(flow: str) -> None:
    arguments, said = FLOWS[flow]
    code, error = light(flow, *arguments)
    assert (code, said in error) == (2, True), error
    assert light(flow, "--help") == (0, "")
    assert light(flow, "--no-such-option")[0] == 2


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
