"""What the commands share: arguments, refusals before anything heavy is imported, exit codes, and how they end."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import pytest
from prefect.utilities.engine import capture_sigterm
from rich.console import Console

from flows.command import listed, parsed, parser, run
from nightloom.core.errors import InputError, TrainingError
from tasks.progress import Terminal

ROOT = Path(__file__).parents[2]
HEAVY = ("prefect", "great_expectations", "mlflow", "torch", "pandas", "transformers")


@pytest.fixture(autouse=True)
def _signals_as_they_were() -> object:
    before, hook = signal.getsignal(signal.SIGTERM), sys.unraisablehook
    yield
    signal.signal(signal.SIGTERM, before)
    sys.unraisablehook = hook


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
    "monitor": (["--preset", "movie-small"], "no preset is named 'movie-small'"),
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


class Dying:
    """Something whose destructor is at work when a signal comes."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number

    def __del__(self) -> None:
        signal.raise_signal(self.number)


def dies(how: str, number: signal.Signals) -> None:
    """Let a signal come where Python swallows what its handler raises."""
    if how == "destructor":
        Dying(number)
        return
    thing = set[int]()
    noticed = weakref.ref(thing, lambda _: signal.raise_signal(number))
    del thing
    assert noticed() is None


@pytest.mark.parametrize("how", ["destructor", "weak reference"])
@pytest.mark.parametrize("handler", ["ours", "prefect's"])
def test_a_sigterm_that_comes_in_a_destructor_or_the_callback_of_a_weak_reference_is_not_lost(how: str, handler: str) -> None:
    def work() -> int:
        with capture_sigterm() if handler == "prefect's" else contextlib.nullcontext():
            dies(how, signal.SIGTERM)
            dies(how, signal.SIGTERM)
            for _ in range(100):
                time.sleep(0.05)
        return 0

    with pytest.raises(SystemExit) as ended:
        run(work, lambda result, console: None)
    assert ended.value.code == 128 + signal.SIGTERM


@pytest.mark.parametrize("how", ["destructor", "weak reference"])
def test_a_ctrl_c_there_is_not_lost_either(how: str) -> None:
    def work() -> int:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a script Python leaves it ignored
        dies(how, signal.SIGINT)
        for _ in range(100):
            time.sleep(0.05)
        return 0

    with pytest.raises(KeyboardInterrupt):
        run(work, lambda result, console: None)


CANCELLED = """
import signal, time
from flows.command import run
signal.signal(signal.SIGINT, signal.default_int_handler)
run(lambda: (signal.raise_signal(signal.SIGINT), time.sleep(60)), lambda *_: 0)
"""


def test_a_ctrl_c_is_answered_in_a_line_and_ends_the_command_as_a_signal_does() -> None:
    env = os.environ | {"PYTHONPATH": f"{ROOT}/src:{ROOT}"}
    done = subprocess.run([sys.executable, "-c", CANCELLED], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGINT
    assert done.stderr == "Cancelled. Started again, it goes on from what is done.\n"


def test_a_terminal_without_the_letters_ends_no_command(tmp_path: Path) -> None:
    rows = "".join(f"Käufer{at % 9},物品{at % 5},{1_600_000_000 + 86_400 * at},购买\n" for at in range(200))
    (tmp_path / "Käufe.csv").write_text(f"user_id,item_id,timestamp,event\n{rows}", encoding="utf-8")
    (tmp_path / "mine.yaml").write_text("name: mine\ndata: {events: Käufe.csv}\nprepare: {positive_events: [购买]}\n", encoding="utf-8")
    line = [sys.executable, "-m", "nightloom.cli", "check", "mine.yaml"]
    env = os.environ | {"PYTHONPATH": f"{ROOT}/src:{ROOT}", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert rb"K\xe4ufe.csv" in done.stdout
    assert rb"\u8d2d\u4e70" in done.stdout


def test_stages_are_told_on_such_a_terminal_too() -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace")
    record = logging.makeLogRecord({"msg": "collect: 3 [x] événements", "nightloom": True, "stage": "collect"})
    Terminal(Console(file=out)).emit(record)
    out.flush()
    assert out.buffer.getvalue() == b"done: collect: 3 [x] \\xe9v\\xe9nements\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/api", "http://someone:pl4nted@127.0.0.1:9/api", "nonsense"])
def test_a_dead_prefect_server_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("PREFECT_API_URL", address)
    code, error = light("nightly", "--preset", "movies-small")
    assert code == 1
    assert error.startswith(f"NightloomError: Prefect's server at {address.replace('pl4nted', '***')} does not answer")
    assert error.count("\n") == 1
    assert "pl4nted" not in error


def test_a_misspelt_option_is_told_with_the_one_that_may_be_meant() -> None:
    code, error = light("nightly", "--prset", "movies-small")
    assert (code, "--prset: did you mean --preset?" in error) == (2, True), error
    code, error = light("nightly", "--preset", "movies-small", "--froce")
    assert (code, "--froce: did you mean --force?" in error) == (2, True), error
