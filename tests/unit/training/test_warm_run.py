"""A run that starts from the champion is the same whatever the workers and however often it is cut off."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from nightloom.training import checkpoint
from nightloom.training import run as run_module
from nightloom.training.distributed import World
from nightloom.training.fine_tune import Start, fine_tune
from nightloom.training.run import Training
from nightloom.training.run_json import Run
from nightloom.training.warm_start import START_FILE, write_start


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def dated(shop: SimpleNamespace, folder: Path, validation: int, test: int) -> Path:
    """The shop's prepared folder as of a night with these cutoffs."""
    shutil.copytree(shop.prepared, folder)
    meta = json.loads((folder / "meta.json").read_text())
    cutoffs = {"cutoffs": {"temporal": {"validation": validation, "test": test}}, "trained_until": {"temporal": test - 1}}
    (folder / "meta.json").write_text(json.dumps(meta | cutoffs))
    return folder


@pytest.fixture
def champion(tmp_path: Path, shop, settings, write_run) -> Start:
    """The model of an earlier night."""
    path = write_run(settings(epochs=3), tmp_path / "champion")
    content = json.loads(path.read_text()) | {"prepared": str(dated(shop, tmp_path / "yesterday", 80, 100))}
    path.write_text(json.dumps(content))
    Training(Run.load(path), World())()
    return Start(tmp_path / "champion" / "bundle", tmp_path / "champion" / "search.safetensors")


@pytest.fixture
def tonight(tmp_path: Path, shop) -> Path:
    return dated(shop, tmp_path / "tonight", 90, 110)


def test_two_workers_give_the_warm_curve_of_one(tmp_path: Path, settings, shop, champion: Start, tonight: Path) -> None:
    figures = {}
    for workers in (1, 2):
        config = settings(epochs=9, workers=workers, warm_start=True, warm_epochs=3)
        out = tmp_path / str(workers)
        figures[workers] = fine_tune(config, "temporal", tonight, shop.pretrained, out, None, champion)
    assert figures[1]["warm_start"] == figures[2]["warm_start"]
    taken = figures[2]["warm_start"]
    assert (taken["trained_until"], taken["items_kept"] + taken["items_new"]) == (99, 30)
    assert taken["items_new"] >= 2  # two items are never had
    assert [figures[workers]["workers"] for workers in (1, 2)] == [1, 2]
    one, two = (json.loads((tmp_path / name / "curves.json").read_text()) for name in ("1", "2"))
    assert len(one) == len(two) == 3  # of nine epochs from scratch
    rates = [line["learning_rate"] for line in one]  # at the ends of epochs: the rate falls to nothing
    assert rates[0] > rates[1] > rates[2]
    assert rates[2] < 0.4 * rates[0]
    for key in ("loss", "validation_ndcg_at_10"):
        np.testing.assert_allclose([line[key] for line in one], [line[key] for line in two], rtol=1e-5, atol=1e-6)
    scratch = json.loads((champion.bundle.parent / "curves.json").read_text())
    assert one[0]["loss"] < scratch[0]["loss"]  # it starts from what was learned


@pytest.mark.parametrize("cut_after", [1, 3])
def test_a_warm_run_that_is_cut_off_ends_like_one_that_is_not(
    cut_after: int, tmp_path: Path, settings, shop, write_run, champion: Start, tonight: Path, monkeypatch
) -> None:
    """Cut in the search (after epoch 1 of 2) and in the refit."""
    config = settings(epochs=9, warm_start=True, warm_epochs=2)

    def remapped(name: str) -> Path:
        path = write_run(config, tmp_path / name)
        content = json.loads(path.read_text()) | {"prepared": str(tonight)}
        found = write_start(content["config"], "temporal", tonight, shop.pretrained, *champion, path.parent)
        path.write_text(json.dumps(content | {"start": {"file": START_FILE, "sha256": found["sha256"]}}))
        return path

    whole = Training(Run.load(remapped("whole")), World())()

    class Killed(Exception):
        pass

    saves, really_save = 0, checkpoint.save

    def save_then_die(folder: Path, state: dict) -> None:
        nonlocal saves
        really_save(folder, state)
        saves += 1
        if saves == cut_after:
            raise Killed

    path = remapped("cut")
    with monkeypatch.context() as patch:
        patch.setattr(run_module.checkpoint, "save", save_then_die)
        with pytest.raises(Killed):
            Training(Run.load(path), World())()
    again = Training(Run.load(remapped("cut")), World())()  # the caller lays the weights out anew
    assert (again["epochs"], again["best_epoch"]) == (whole["epochs"], whole["best_epoch"])
    assert again["epochs"] <= 2
    for name in ("bundle/model.safetensors", "search.safetensors"):
        first, second = (load_file(tmp_path / run / name) for run in ("whole", "cut"))
        for weight in first:
            np.testing.assert_array_equal(first[weight], second[weight])
