"""One process reads texts for all workers of a machine; it comes when it is needed, and goes when nobody is there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest

from nightloom.core.errors import InputError
from nightloom.encoders.export import export
from nightloom.encoders.exported import SETTINGS, ExportedEncoder
from nightloom.encoders.shared import SharedEncoder, socket_of
from nightloom.encoders.text import TextEncoder
from tests.tiny_models import tiny_bert
from tests.waiting import until

TEXTS = ["toy story", "", "the dark king", "猫"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("shared")
    export(TextEncoder.load(str(tiny_bert(home / "bert"))), home / "made", "single")
    return home / "made"


def processes(folder: Path) -> list[psutil.Process]:
    """Those that read texts by an encoder."""
    running = [one for one in psutil.process_iter(["cmdline", "status"]) if one.info["status"] != psutil.STATUS_ZOMBIE]
    return [one for one in running if str(folder) in (one.info["cmdline"] or ())]


def test_all_ask_one_process_which_ends_after_the_last(folder: Path) -> None:
    alone = ExportedEncoder(folder)
    found: list[SharedEncoder] = []
    threads = [threading.Thread(target=lambda: found.append(SharedEncoder(folder))) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(found) == 4
    assert len(processes(folder)) == 1
    for text in TEXTS:
        for encoder in found:
            np.testing.assert_array_equal(encoder.vector(text), alone.vector(text))
    assert found[0].vector("toy story") is found[0].vector("toy story")
    assert found[0].dim == alone.dim
    for encoder in found:
        encoder.close()
    until(lambda: not processes(folder), 0.2)
    assert not socket_of(folder).exists()


def test_a_text_that_can_not_be_read_is_refused_and_the_next_one_is_read(folder: Path) -> None:
    encoder = SharedEncoder(folder)
    with pytest.raises(InputError, match="can not be read"):
        encoder.vector("\ud800 half a sign")
    assert len(encoder.vector("whole")) == encoder.dim
    encoder.close()


def test_where_the_process_was_ended_the_next_text_starts_it_anew(folder: Path) -> None:
    encoder = SharedEncoder(folder)
    (before,) = processes(folder)
    before.send_signal(signal.SIGKILL)
    before.wait(30)
    np.testing.assert_array_equal(encoder.vector("another"), ExportedEncoder(folder).vector("another"))
    (after,) = processes(folder)
    assert after.pid != before.pid
    encoder.close()


def test_one_that_can_not_be_opened_is_refused_and_may_be_mended(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in folder.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    said = json.loads((folder / SETTINGS).read_text())
    (broken / SETTINGS).write_text(json.dumps(said | {"dim": None}))
    with pytest.raises(InputError, match=f"{broken}: no text encoder that can be read"):
        SharedEncoder(broken)
    (broken / SETTINGS).write_text(json.dumps(said))
    assert SharedEncoder(broken).dim == said["dim"]


def test_whoever_asks_holds_neither_openvino_nor_a_tokenizer(folder: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom nightloom.encoders.shared import SharedEncoder\n"
        "assert len(SharedEncoder(Path(sys.argv[1])).vector('toy story'))\n"
        "assert not {'openvino', 'tokenizers', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)


def test_nobody_else_can_connect(folder: Path) -> None:
    home = socket_of(folder).parent
    assert home.stat().st_uid == os.getuid()
    assert not home.stat().st_mode & 0o077
