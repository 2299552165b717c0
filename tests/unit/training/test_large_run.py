"""A run over a large catalogue: the same losses, by rows of the id table and by vectors that workers share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from nightloom.models.scorers.text_neighbours import TextNeighbours
from nightloom.packaging.bundle import Bundle
from nightloom.training.distributed import World
from nightloom.training.run import Training
from nightloom.training.run_json import Run
from tests.large_thresholds import make_small
from tests.unit.training.test_training_run import GOLDEN, losses

WORKER = """
import sys
from pathlib import Path
from tests.large_thresholds import make_small
make_small()
from nightloom.models.sequential.content_fusion import ItemFusion
from nightloom.training.distributed import world
from nightloom.training import run
from nightloom.training.run import Training
from nightloom.training.run_json import Run
made, whitened, built, scorers = [], ItemFusion.whitened, [], run.fit_scorers
ItemFusion.whitened = lambda *given: made.append(1) or whitened(*given)
run.fit_scorers = lambda *given, **more: built.append(1) or scorers(*given, **more)
with world() as here:
    Training(Run.load(Path(sys.argv[1])), here)()
    print("rank", here.rank, "whitened", len(made), "built", len(built), flush=True)
    here.wait()
"""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def one_setting(settings):
    return settings(epochs=2, model={"dropout": 0.0, "id_dropout": 0.0, "scorers": ["graph", "text_neighbours", "popularity", "als"]})


def test_the_losses_are_the_golden_ones_for_one_worker_and_for_two(tmp_path: Path, settings, write_run, monkeypatch) -> None:
    with monkeypatch.context() as small:
        make_small(small.setattr)
        searches = []
        found = TextNeighbours.read_unit
        small.setattr(TextNeighbours, "read_unit", lambda *given: searches.append(1) or found(*given))
        training = Training(Run.load(write_run(one_setting(settings), tmp_path / "one")), World())
        figures = training()
    assert losses(tmp_path / "one") == pytest.approx(GOLDEN, abs=2e-3)  # texts are in half precision
    assert figures["refitted"]
    assert len(searches) == 1, "search and refit share the neighbours"

    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]  # not in __all__
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "WORLD_SIZE": "2", "PYTHONPATH": "src:."}
    command = [sys.executable, "-c", WORKER, str(write_run(one_setting(settings), tmp_path / "two"))]
    workers = [
        subprocess.Popen(command, env=os.environ | place | {"RANK": rank}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for rank in "01"
    ]
    said = [worker.communicate(timeout=300)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], said
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-4)
    assert not list((tmp_path / "two").glob("white*")), "the file has no name any more"
    assert ["rank 0 whitened 2 built 2" in said[0], "rank 1 whitened 0 built 0" in said[1]] == [True, True], said
    one, two = (Bundle.load(tmp_path / name / "bundle").recommender for name in ("one", "two"))
    np.testing.assert_allclose(one.item_vectors(), two.item_vectors(), atol=2e-3)
    assert json.loads((tmp_path / "two" / "figures.json").read_text())["weights"].keys() == figures["weights"].keys()


def test_a_run_that_was_cut_off_goes_on_from_its_checkpoint(tmp_path: Path, settings, write_run, monkeypatch) -> None:
    make_small(monkeypatch.setattr)
    config = one_setting(settings)
    Training(Run.load(write_run(config, tmp_path / "whole")), World())()
    training = Training(Run.load(write_run(config, tmp_path / "cut")), World())

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("nightloom.training.curves.append", stop)
        with pytest.raises(KeyboardInterrupt):
            training()
    again = Training(Run.load(tmp_path / "cut" / "run.json"), World())
    again()
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
