"""Fuzz a target, guided by coverage: `python -m tests.fuzz config -max_total_time=60` (libFuzzer's options).

A crash is written to the working directory as `crash-...`; the same command with that file as its last word tries it again.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["nightloom", "yaml"]):
    from tests.fuzz.targets import TARGETS, seeds

if __name__ == "__main__":
    target, *options = sys.argv[1:]
    corpus = Path(tempfile.mkdtemp(prefix=f"fuzz-{target}-"))
    for number, seed in enumerate(seeds(target)):
        (corpus / f"seed-{number}").write_bytes(seed)
    again = [one for one in options if Path(one).is_file()]
    atheris.Setup([sys.argv[0], *options, *([] if again else [str(corpus)])], TARGETS[target])
    atheris.Fuzz()
