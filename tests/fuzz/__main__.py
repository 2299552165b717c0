"""Fuzz a target, guided by coverage: `python -m tests.fuzz config -max_total_time=60` (libFuzzer's options).

A crash is written to the working directory as `crash-...`; the same command with that file as its last word tries it again.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["nightloom", "yaml"]):
    from tests.fuzz.targets import TARGETS, seeds


def fuzz(target: str, options: list[str], corpus: Path) -> None:
    """Fuzz until libFuzzer ends this process."""
    for number, seed in enumerate(seeds(target)):
        (corpus / f"seed-{number}").write_bytes(seed)
    again = [one for one in options if Path(one).is_file()]
    atheris.Setup([sys.argv[0], *options, *([] if again else [str(corpus)])], TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    target, *options = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{target}-") as folder:
        child = os.fork()  # libFuzzer ends its process at once: whoever waits for it deletes what it leaves
        if child == 0:
            tempfile.tempdir = folder
            corpus = Path(folder) / "corpus"
            corpus.mkdir()
            fuzz(target, options, corpus)
            sys.exit()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    sys.exit(code)
