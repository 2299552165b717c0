"""The command itself: version, completion, typos, refusals, and what it imports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nightloom as package
from nightloom.cli import app


def command(*arguments: str, cwd: Path | None = None, **settings: str) -> subprocess.CompletedProcess[str]:
    """`nightloom` in a process of its own."""
    line = [sys.executable, "-m", "nightloom.cli", *arguments]
    return subprocess.run(line, cwd=cwd, env=os.environ | settings, capture_output=True, text=True, timeout=100, check=False)


def test_the_version_is_that_of_the_package() -> None:
    assert command("--version").stdout == f"nightloom {package.__version__}\n"


def test_a_typo_is_refused_with_the_nearest_command() -> None:
    done = command("recomend")
    assert done.returncode == 2
    assert "Did you mean 'recommend'?" in done.stderr


def test_shells_are_offered_completion() -> None:
    done = command("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.returncode == 0
    assert "complete" in done.stdout


def test_help_and_typos_import_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from nightloom.cli import app\n"
        "for arguments in (['--help'], ['night', '--help'], ['recomend'], ['--version']):\n"
        "    try:\n"
        "        app(arguments)\n"
        "    except SystemExit:\n"
        "        pass\n"
        "assert not {'pandas', 'numpy', 'torch', 'mlflow', 'prefect'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr


def test_every_command_says_what_it_does() -> None:
    known = {one.callback.__name__ for one in app.registered_commands if one.callback and one.callback.__doc__}
    assert known >= {"init", "check", "night", "deploy", "doctor", "recommend", "compare", "versions", "rollback", "trim", "data"}


def test_the_entry_point_tells_refused_input_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from nightloom.cli import main; main()", "versions", "shop"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "nightloom: mlruns/mlflow.db: no night has run there. Set --root to the mlruns folder, or NIGHTLOOM_MLFLOW_URI.\n"
    assert list(tmp_path.iterdir()) == []


def test_a_misspelt_option_is_told_with_those_that_there_are() -> None:
    done = command("night", "--prset", "movies-small")
    assert (done.returncode, "--preset" in done.stderr) == (2, True)


def test_an_address_with_a_password_is_neither_taken_nor_written(tmp_path: Path) -> None:
    done = command("init", "postgresql://reader:pl4nted@host/shop?table=events", cwd=tmp_path)
    assert (done.returncode, "NIGHTLOOM_SQL_PASSWORD" in done.stderr) == (2, True)
    assert "pl4nted" not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_password_of_an_mlflow_that_is_away_is_not_told(tmp_path: Path) -> None:
    settings = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "NIGHTLOOM_MLFLOW_WAIT": "1"}
    for address in ("http://night:pl4nted@127.0.0.1:9", "nonsense://night:pl4nted@host"):
        done = command("versions", "shop", cwd=tmp_path, NIGHTLOOM_MLFLOW_URI=address, **settings)
        assert done.returncode == 1, done.stderr
        assert "pl4nted" not in done.stdout + done.stderr
        assert f"{address.partition(':')[0]}://night:***@" in done.stderr
