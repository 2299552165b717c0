"""A virtual environment for each peer, made once and kept, so that no peer's requirements meet ours."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

PEERS = Path(__file__).resolve().parents[1] / "peers"
GET_PIP = Path(__file__).resolve().parents[2] / "deployment" / "get_pip.py"


class PeerMissing(Exception):
    """A peer can not be had here; the message says why."""


def home() -> Path:
    """Where the environments are: NIGHTLOOM_BENCH_ENVS, or ~/.cache/nightloom-bench."""
    return Path(os.environ.get("NIGHTLOOM_BENCH_ENVS", "~/.cache/nightloom-bench")).expanduser()


def python_of(peer: str, say: Callable[[str], None], *, install: bool = True) -> Path:
    """The Python of a peer's environment, which is made when it is not there or its requirements have changed.

    Args:
        peer: `benchmarks/peers/<peer>.txt` pins what it needs.
        say: told what is done, for it takes minutes.
        install: make the environment; otherwise only look.

    Raises:
        PeerMissing: it is not there, or pip could not install it.
    """
    pins = PEERS / f"{peer}.txt"
    folder = home() / peer
    python, mark = folder / "bin" / "python", folder / ".ready"
    digest = hashlib.sha256(pins.read_bytes()).hexdigest()
    if python.exists() and mark.exists() and mark.read_text(encoding="utf-8") == digest:
        return python
    if not install:
        raise PeerMissing(f"{peer} is not installed in {folder}")
    say(f"installing {peer} in {folder} (some minutes, once)")
    if not python.exists():
        made = subprocess.run([sys.executable, "-m", "venv", str(folder)], capture_output=True, text=True, check=False)
        if made.returncode:  # a bare Debian has no ensurepip
            _run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder)], peer)
            _run([str(python), str(GET_PIP)], peer)
    _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(pins)], peer)
    mark.write_text(digest, encoding="utf-8")
    return python


def version(peer: str) -> str:
    """The peer and its version, as pinned."""
    names = {"rectools": "rectools", "replay": "replay-rec", "recbole": "recbole"}
    lines = (PEERS / f"{peer}.txt").read_text(encoding="utf-8").splitlines()
    return next(line.strip().replace("==", " ") for line in lines if line.lower().startswith(f"{names[peer]}=="))


def _run(command: list[str], peer: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise PeerMissing(f"{peer} can not be installed: {' '.join(command)} failed:\n{tail}")
